"""Searches over values of a config: one training after the other (Optuna), or a population on many devices."""
