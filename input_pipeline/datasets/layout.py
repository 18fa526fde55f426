"""Finding the sequences below a root: directly in it, or one level below train/, val/, test/, or the root itself."""

import collections
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from input_pipeline.datasets.labels import Labels
from input_pipeline.datasets.media import Media, entries
from input_pipeline.errors import UserError
from input_pipeline.frames import AnyPath

SPLITS = ("train", "val", "test")
_NO_SEQUENCES = ("anno", "annos", "tiranno", "att", "__MACOSX")  # Folders beside the sequences that hold none.

IsSequence = Callable[[pathlib.Path, bool], bool]  # See `Reader.is_sequence`.


class NoSequences(UserError):
  """A root in which a format finds no sequence."""


class Found(NamedTuple):
  """One sequence below a root. `split`: the folder that tells it from a namesake, "" for none."""

  split: str
  name: str
  path: pathlib.Path


class Reader(Protocol):
  """What a format's module offers. A sequence is known by its path: a folder, a video or an annotation file."""

  @property
  def LAYOUT(self) -> str:
    """What is expected below the root, in words, for messages."""

  @property
  def ORIGIN(self) -> int:
    """The coordinates of the top left pixel in the files: 1 where they are made for Matlab, else 0."""

  def is_sequence(self, path: pathlib.Path, frames: bool) -> bool:
    """Whether `path` (a folder or a file) is one sequence. `frames`: whether its frames are wanted too."""

  def find(self, root: pathlib.Path, frames: bool) -> list[Found]:
    """All sequences below `root`, which exists; `walk` for most formats. Raises UserError."""

  def read_labels(self, path: pathlib.Path) -> Labels:
    """The labels, 0-based. Raises UserError."""

  def find_media(self, path: pathlib.Path) -> Media:
    """The frames of a sequence. Raises UserError when there are none."""


def find_sequences(reader: Reader, root: AnyPath, frames: bool) -> list[tuple[str, pathlib.Path]]:
  """The (name, path) of all sequences below `root`, sorted by name.

  A name that occurs in several splits gets its split in front (`train_01`, `val_01`). Names are in Unicode's composed
  form (NFC), whatever form the file system holds.

  Raises:
    UserError: no such root, or nothing in it (`NoSequences`).
  """
  root = pathlib.Path(os.path.abspath(root))  # So that "." has a name; links stay as they are.
  check_link(root)
  if not root.exists():
    raise UserError(f"{root}: no such folder, expected {reader.LAYOUT}")
  found = reader.find(root, frames)
  if not found:
    raise NoSequences(f"{root}: no sequences found, expected {reader.LAYOUT}")
  return sorted(_unique(found))


def walk(root: pathlib.Path, frames: bool, is_sequence: IsSequence, annos: str = "annos") -> list[Found]:
  """The sequences of a root, found the usual way.

  The root itself, when it is one; else every subfolder, so that one without labels is an error and not silently left
  out, except hidden folders, folders of annotations, `__MACOSX` and the splits, whose subfolders count instead.
  Without frames, the folder `annos` in the root is searched where there is nothing else.
  """
  if is_sequence(root, frames):
    return [found_at(root)]
  found = _children(root, frames, is_sequence, SPLITS) if root.is_dir() else []
  if not found and not frames and (root / annos).is_dir():
    found = _children(root / annos, frames, is_sequence, SPLITS)
  return found


def found_at(path: pathlib.Path, split: str = "") -> Found:
  """The sequence at a path, named after its folder or file."""
  return Found(split, path.name if path.is_dir() else path.stem, path)


def composed(name: str) -> str:
  """A name in Unicode's composed form (NFC), in which names are compared; macOS writes the decomposed one."""
  return unicodedata.normalize("NFC", name)


def linked_entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """What a folder of sequences holds, as `entries`; UserError for a link that leads nowhere."""
  paths = entries(folder)
  for path in paths:
    check_link(path)
  return paths


def is_for_sequences(path: pathlib.Path) -> bool:
  """Whether a folder, by its name, can be a sequence or hold some."""
  return path.is_dir() and path.name not in _NO_SEQUENCES


def check_link(path: pathlib.Path) -> None:
  """Raises UserError for a link that leads nowhere."""
  if path.is_symlink() and not path.exists():
    raise UserError(f"{path}: a link to {os.readlink(path)}, which does not exist")


def _children(folder: pathlib.Path, frames: bool, is_sequence: IsSequence, splits: Sequence[str]) -> list[Found]:
  """The sequences in a folder; the split is empty for those directly in it."""
  found, files = [], []
  for path in entries(folder):
    if path.suffix.lower() == ".txt":  # May be a list, without which the others are not what they seem.
      check_link(path)
    if path.is_symlink() and not path.exists():  # A sequence that is not there: whoever opens it says so.
      found.append(found_at(path))
    elif not path.is_dir():
      files.append(path)
    elif path.name in splits and not is_sequence(path, frames):
      found += [one._replace(split=path.name) for one in _children(path, frames, is_sequence, splits=())]
    elif is_for_sequences(path):
      found.append(found_at(path))
  sequence_files = [path for path in files if is_sequence(path, frames)]
  if found:  # A text file beside sequence folders is a list or a readme, not a sequence.
    sequence_files = [path for path in sequence_files if path.suffix.lower() != ".txt"]
  with_video = {path.stem for path in sequence_files if path.suffix.lower() != ".txt"}
  return found + [found_at(p) for p in sequence_files if p.suffix.lower() != ".txt" or p.stem not in with_video]


def _unique(found: Iterable[Found]) -> list[tuple[str, pathlib.Path]]:
  found = [one._replace(name=composed(one.name)) for one in found]
  counts = collections.Counter(one.name for one in found)
  result, taken = [], {name for name, count in counts.items() if count == 1}
  for split, name, path in found:
    if counts[name] > 1:
      name = f"{split}_{name}" if split else name
      while name in taken:
        name += "_"
      taken.add(name)
    result.append((name, path))
  return result
