"""Labelled sequences from disk, one small module per format.

  for sequence in datasets.load("antiuav", "data/val"):
    sequence.name, sequence.boxes, sequence.frames[0]

`load` stops at the first problem, `load_readable` goes on without the sequences that have one, `check` collects all
problems, `open_frames` reads footage without labels.
"""

from input_pipeline.datasets.checking import Report, SequenceReport, check
from input_pipeline.datasets.formats import FORMATS
from input_pipeline.datasets.loading import load, load_matching, load_readable
from input_pipeline.datasets.media import open_frames

__all__ = ["FORMATS", "Report", "SequenceReport", "check", "load", "load_matching", "load_readable",
           "open_frames"]
