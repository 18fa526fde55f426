"""Searches over values of a config: one training after the other (Optuna), or all at once on a population of devices."""
