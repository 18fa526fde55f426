"""The training: its step, its loop, and what it logs, measures and saves."""
