"""Loading a data set: stops at the first problem."""

import unicodedata
from collections.abc import Iterable

import numpy as np
import tqdm

from input_pipeline.datasets.formats import reader
from input_pipeline.datasets.layout import find_sequences
from input_pipeline.datasets.media import open_media
from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence, from_labels


def load(format: str, root, *, frames: bool = True, only: Iterable[str] | None = None) -> list[Sequence]:
  """Loads a data set.

  Args:
    format: a key of `FORMATS`.
    root: a folder with sequences in it, or one level below `train`, `val`, `test` (all are loaded), or one sequence.
    frames: whether frames are opened (lazily decoded, image files in natural order: frame2 before frame10). If
      not, only annotation files need to exist, and `Sequence.frames` is None.
    only: the names of the sequences wanted; the others are not opened. None is all of them.

  Returns:
    The sequences, sorted by name (names are unique). Boxes are 0-based xywh pixels.

  Raises:
    DataError: at the first problem: unknown format, missing root, no sequences, no sequence of a name in `only`, a
      sequence without labels or frames, labels that cannot be read or do not fit the frames in number or size, a
      visible box that lies outside the frame.
      A target absent in the first frame is none (training can use the rest): evaluation has to refuse it.
  """
  source = reader(format)
  found = find_sequences(source, root, frames)
  if only is not None:
    found = _chosen(found, {unicodedata.normalize("NFC", name) for name in only}, root)
  progress = tqdm.tqdm(found, desc=f"loading {root}", unit="seq", delay=3, leave=False)
  return [_load_one(source, name, path, frames) for name, path in progress]


def load_matching(format: str, root, part: str) -> list[Sequence]:
  """The sequences of `load` whose name contains `part`; raises DataError where there are none, or like `load`."""
  found = [sequence for sequence in load(format, root) if part in sequence.name]
  if not found:
    raise DataError(f"{root}: no sequence has {part!r} in its name, which `only` asks for")
  return found


def is_outside(boxes, sizes) -> np.ndarray:
  """bool [T]: which boxes [T, 4] (xywh) share no pixel with their frame; sizes (width, height), [2] or [T, 2]."""
  boxes, sizes = np.asarray(boxes, np.float64), np.asarray(sizes)
  return ((boxes[:, :2] >= sizes) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(axis=1)


def check_size(found, size):
  """DataError when the labels tell another frame size than the (width, height) of the first frame."""
  if found.size is not None and tuple(found.size) != tuple(size):
    raise DataError(f"{found.where}: its labels are for frames of {found.size[0]}x{found.size[1]} pixels, the first "
                    f"frame has {size[0]}x{size[1]}")


def _chosen(found, only, root):
  unknown = sorted(only - {name for name, _ in found})
  if unknown:
    raise DataError(f"{root}: no sequence {', '.join(unknown)} among the {len(found)} found there")
  return [(name, path) for name, path in found if name in only]


def _load_one(source, name, path, frames) -> Sequence:
  found = source.read_labels(path)
  opened, size = open_media(source.find_media(path), len(found.boxes)) if frames else (None, found.size)
  sequence = from_labels(name, opened, found.boxes, found.visible, found.where, found.attributes, size,
                         found.frame_labels, found.lookalikes)
  if frames:
    check_size(found, size)
    outside = np.flatnonzero(sequence.visible & is_outside(sequence.boxes, size))
    if len(outside):
      t = int(outside[0])
      raise DataError(f"{found.where}: frame {t} has the box {sequence.boxes[t].tolist()}, outside of the frame "
                      f"of {size[0]}x{size[1]} pixels")
  return sequence
