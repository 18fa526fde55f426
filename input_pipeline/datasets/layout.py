"""Finding the sequences below a root: directly in it, or one level below train/, val/, test/, or the root itself."""

import collections
import os
import pathlib
from typing import Protocol

from input_pipeline.datasets.labels import Labels
from input_pipeline.datasets.media import entries
from input_pipeline.errors import DataError

SPLITS = ("train", "val", "test")
_NO_SEQUENCES = ("annos", "att", "__MACOSX")  # Folders beside the sequences that hold none.


class Reader(Protocol):
  """What a format's module offers. A sequence is known by its path: a folder, a video or an annotation file."""

  LAYOUT: str  # What is expected below the root, in words, for messages.

  def is_sequence(self, path: pathlib.Path, frames: bool) -> bool:
    """Whether `path` (a folder or a file) is one sequence. `frames`: whether its frames are wanted too."""

  def read_labels(self, path: pathlib.Path) -> Labels:
    """The labels, 0-based. Raises DataError."""

  def find_media(self, path: pathlib.Path):
    """The path of a video or a list of image paths in frame order. Raises DataError when there is neither."""


def find_sequences(reader: Reader, root, frames: bool) -> list[tuple[str, pathlib.Path]]:
  """The (name, path) of all sequences below `root`, sorted by name.

  Every subfolder counts as a sequence, so that one without labels is an error and not silently left out; exceptions
  are hidden folders, `annos`, `att`, `__MACOSX` and the splits. A name that occurs in several splits gets its
  split in front (`train_01`, `val_01`).

  Raises:
    DataError: no such root, or nothing in it.
  """
  root = pathlib.Path(os.path.abspath(root))  # So that "." has a name; links stay as they are.
  if not root.exists():
    raise DataError(f"{root}: no such folder, expected {reader.LAYOUT}")
  if reader.is_sequence(root, frames):
    return [(_name(root), root)]
  found = _children(reader, root, frames) if root.is_dir() else []
  if not found and not frames and (root / "annos").is_dir():
    found = _children(reader, root / "annos", frames)
  if not found:
    raise DataError(f"{root}: no sequences found, expected {reader.LAYOUT}")
  return sorted(_unique(found))


def _children(reader, folder, frames, splits=SPLITS) -> list[tuple[str, pathlib.Path]]:
  """(split, path) of the sequences in a folder; the split is empty for those directly in it."""
  found, files = [], []
  for path in entries(folder):
    if not path.is_dir():
      files.append(path)
    elif path.name in splits and not reader.is_sequence(path, frames):
      found += [(path.name, below) for _, below in _children(reader, path, frames, splits=())]
    elif path.name not in _NO_SEQUENCES:
      found.append(("", path))
  sequence_files = [path for path in files if reader.is_sequence(path, frames)]
  if found:  # A text file beside sequence folders is a list or a readme, not a sequence.
    sequence_files = [path for path in sequence_files if path.suffix.lower() != ".txt"]
  with_video = {path.stem for path in sequence_files if path.suffix.lower() != ".txt"}
  return found + [("", p) for p in sequence_files if p.suffix.lower() != ".txt" or p.stem not in with_video]


def _unique(found) -> list[tuple[str, pathlib.Path]]:
  counts = collections.Counter(_name(path) for _, path in found)
  result, taken = [], {name for name, count in counts.items() if count == 1}
  for split, path in found:
    name = _name(path)
    if counts[name] > 1:
      name = f"{split}_{name}" if split else name
      while name in taken:
        name += "_"
      taken.add(name)
    result.append((name, path))
  return result


def _name(path: pathlib.Path) -> str:
  return path.name if path.is_dir() else path.stem
