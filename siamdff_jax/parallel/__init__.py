"""Several devices, and several processes, as one: where the step runs, and how the processes find each other."""
