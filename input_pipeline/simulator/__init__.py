"""Labelled thermal-infrared sequences of small drones, made from a seed."""

from input_pipeline.simulator.render import simulate
from input_pipeline.simulator.writing import is_complete, write_sequence

__all__ = ["is_complete", "simulate", "write_sequence"]
