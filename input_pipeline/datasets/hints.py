"""What to try where a format finds no labels or no sequences: files that look like labels, formats that read them."""

import collections
import pathlib
import re
from collections.abc import Iterable

from input_pipeline.datasets import media
from input_pipeline.datasets.formats import FORMATS
from input_pipeline.datasets.layout import Reader, find_sequences
from input_pipeline.errors import UserError
from input_pipeline.frames import AnyPath

_SUFFIXES = (".txt", ".json", ".xml", ".csv", ".tsv", ".mat", ".label", ".jsonl")
_NAMES = re.compile(r"label|anno|ground.?truth|(?<![a-z])gt(?![a-z])|coco|instances", re.IGNORECASE)
_OTHERS = re.compile(r"readme|licen[cs]e|attribute|classes|(train|val|test|list)\.txt|meta_info|nlp|package",
                     re.IGNORECASE)
_LISTED = 5


def for_sequence(path: pathlib.Path, reader: Reader) -> str:
  """The end of a sentence about a sequence that `reader` finds no labels of; empty where there is nothing to say."""
  formats = [name for name, other in FORMATS.items() if other is not reader and _reads(other, path)]
  if formats:
    return f"; its labels can be read as --format {' or '.join(formats)}"
  files = _label_files(path)
  shown = ", ".join(files[:_LISTED]) + (f" and {len(files) - _LISTED} more" if len(files) > _LISTED else "")
  return f"; {shown} {'is' if len(files) == 1 else 'are'} not read as labels in this format" if files else ""


def for_root(root: AnyPath, reader: Reader, frames: bool) -> str:
  """The end of a sentence about a root in which `reader` finds no sequence; empty where there is nothing to say."""
  formats = [name for name, other in FORMATS.items() if other is not reader and _finds(other, root, frames)]
  return f"; sequences with labels are found there as --format {' or '.join(formats)}" if formats else ""


def _reads(reader: Reader, path: pathlib.Path, frames: bool = True) -> bool:
  try:
    return len(reader.read_labels(path).boxes) > 0 and (not frames or bool(reader.find_media(path)))
  except (UserError, OSError):  # Of a format that is only tried, nothing is reported.
    return False


def _finds(reader: Reader, root: AnyPath, frames: bool) -> bool:
  try:
    return _reads(reader, find_sequences(reader, root, frames)[0][1], frames)
  except (UserError, OSError):
    return False


def _label_files(path: pathlib.Path) -> list[str]:
  """Names of what may hold labels, seen from the sequence: in its folder, and beside it where a name says so."""
  folder = path if path.is_dir() else path.parent
  inside = [file.name for file in _entries(folder) if file.is_file() and _may_hold_labels(file)]
  below = [f"{file.name}/{inner.name}" for file in _entries(folder) if file.is_dir() and _NAMES.search(file.name)
           for inner in _entries(file) if _may_hold_labels(inner)]
  beside = []
  if path.is_dir():
    for file in _entries(folder.parent):
      if file.is_dir() and _NAMES.search(file.name):
        beside += [f"../{file.name}/{inner.name}" for inner in _entries(file) if inner.stem.startswith(path.name)]
      elif file.suffix.lower() in _SUFFIXES and (file.stem == path.name or _NAMES.search(file.stem)):
        beside.append(f"../{file.name}")
  return _summed([*inside, *below, *beside])


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return media.entries(folder)
  except UserError:
    return []


def _may_hold_labels(file: pathlib.Path) -> bool:
  return file.suffix.lower() in _SUFFIXES and not _OTHERS.search(file.name)


def _summed(names: Iterable[str]) -> list[str]:
  """Many files of one kind in one folder (a label file for each frame) as one entry."""
  kinds = collections.defaultdict(list)
  for name in names:
    kinds[str(pathlib.PurePath(name).parent), pathlib.PurePath(name).suffix].append(name)
  return [text for found in kinds.values()
          for text in (found if len(found) <= 2 else [f"{found[0]} (and {len(found) - 1} more)"])]
