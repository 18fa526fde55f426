"""Packed data: what the networks can ever see of a data set, as a TFDS data set of crops around the target.

  prepare(sequences, "packed/train")      writes it; starts where an interrupted run stopped
  sequences = load("packed/train")        the same sequences, with the crops as their frames
"""

from input_pipeline.records.cutting import CONTEXT, JPEG_QUALITY, fingerprint
from input_pipeline.records.packing import packed, prepare, verify
from input_pipeline.records.reading import load, packed_context, packed_fingerprint

__all__ = ["CONTEXT", "JPEG_QUALITY", "fingerprint", "load", "packed", "packed_context", "packed_fingerprint",
           "prepare", "verify"]
