"""Loading a data set: for training it stops at the first problem, for evaluation it goes on with what can be loaded."""

import pathlib
import unicodedata
from collections.abc import Iterable

import numpy as np
import tqdm

from input_pipeline.datasets import hints
from input_pipeline.datasets.formats import reader
from input_pipeline.datasets.labels import Labels, NoLabels
from input_pipeline.datasets.layout import NoSequences, Reader, check_link, find_sequences
from input_pipeline.datasets.media import open_media
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape, Sequence, from_labels


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
    UserError: at the first problem: unknown format, missing root, no sequences, no sequence of a name in `only`, a
      sequence without labels or frames, labels that cannot be read, are not in pixels or do not fit the frames in
      number or size, a visible box that lies outside the frame.
      A target absent in the first frame is none (training can use the rest): evaluation has to refuse it.
  """
  found = find(format, root, frames)
  if only is not None:
    found = _chosen(found, {unicodedata.normalize("NFC", name) for name in only}, root)
  return [_load_one(reader(format), name, path, frames) for name, path in _progress(found, root)]


def load_matching(format: str, root, part: str) -> list[Sequence]:
  """The sequences whose name contains `part`; raises UserError where there are none, or like `load`."""
  return [_load_one(reader(format), name, path, True) for name, path in _progress(_matching(format, root, part), root)]


def load_readable(format: str, root, part: str = "", *, frames: bool = True
                  ) -> tuple[list[Sequence], dict[str, UserError]]:
  """Like `load_matching`, but goes on where a sequence cannot be loaded.

  Returns:
    The sequences, and the errors that `load` would raise, by the names of those that are missing among them.

  Raises:
    UserError: unknown format, missing root, no sequences, no sequence whose name contains `part`.
  """
  sequences, errors = [], {}
  for name, path in _progress(_matching(format, root, part, frames), root):
    try:
      sequences.append(_load_one(reader(format), name, path, frames))
    except UserError as error:
      errors[name] = error
  return sequences, errors


def find(format: str, root, frames: bool) -> list[tuple[str, pathlib.Path]]:
  """The (name, path) of all sequences, see `layout.find_sequences`; the error says which format would find some."""
  source = reader(format)
  try:
    return find_sequences(source, root, frames)
  except NoSequences as error:
    raise UserError(f"{error}{hints.for_root(root, source, frames)}") from error


def read_labels(source: Reader, path: pathlib.Path) -> Labels:
  """The labels of a sequence; the error for missing ones says what else is there."""
  check_link(path)
  try:
    return source.read_labels(path)
  except NoLabels as error:
    raise NoLabels(f"{error}{hints.for_sequence(path, source)}") from error


def is_outside(boxes, frame_wh) -> np.ndarray:
  """bool [T]: which boxes [T, 4] (xywh) share no pixel with their frame, of a width and height [2] or [T, 2]."""
  boxes, frame_wh = np.asarray(boxes, np.float64), np.asarray(frame_wh)
  return ((boxes[:, :2] >= frame_wh) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(axis=1)


def check_shape(found: Labels, shape: FrameShape) -> None:
  """UserError when the labels tell another shape of the frames than that of the first one."""
  if found.shape not in (None, shape):
    raise UserError(f"{found.where}: its labels are for frames of {found.shape} pixels, the first frame has {shape}")


def _matching(format, root, part, frames=True):
  found = [(name, path) for name, path in find(format, root, frames) if part in name]
  if not found:
    raise UserError(f"{root}: no sequence has {part!r} in its name, which `only` asks for")
  return found


def _progress(found, root):
  return tqdm.tqdm(found, desc=f"loading {root}", unit="seq", delay=3, leave=False)


def _chosen(found, only, root):
  unknown = sorted(only - {name for name, _ in found})
  if unknown:
    raise UserError(f"{root}: no sequence {', '.join(unknown)} among the {len(found)} found there")
  return [(name, path) for name, path in found if name in only]


def _load_one(source, name, path, frames) -> Sequence:
  found = read_labels(source, path)
  opened, shape = open_media(source.find_media(path), len(found.boxes)) if frames else (None, found.shape)
  sequence = from_labels(name, opened, found.boxes, found.visible, found.where, found.attributes, shape,
                         found.frame_labels, found.lookalikes)
  if frames:
    check_shape(found, shape)
    outside = np.flatnonzero(sequence.visible & is_outside(sequence.boxes, shape.wh))
    if len(outside):
      t = int(outside[0])
      raise UserError(f"{found.where}: frame {t} has the box {sequence.boxes[t].tolist()}, outside of the frame "
                      f"of {shape} pixels")
  return sequence
