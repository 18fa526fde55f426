"""Checking a data set: reads every sequence, decodes every frame and collects all problems."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np
import tqdm

from input_pipeline.datasets import plain, suspicions
from input_pipeline.datasets.formats import reader
from input_pipeline.datasets.labels import Labels, NoLabels
from input_pipeline.datasets.loading import check_shape, find, is_outside, read_labels
from input_pipeline.datasets.media import naming_troubles, open_media
from input_pipeline.errors import UserError
from input_pipeline.frames import ImageFiles
from input_pipeline.sequences import FrameShape, from_labels

_MARGIN = 1.0  # px a box may stick out of the frame unmentioned: rounding by annotation tools (our choice).
_NAMED = 20  # How many unreadable frames of one sequence are named one by one.


@dataclasses.dataclass
class SequenceReport:
  """What was found in one sequence.

  Attributes:
    name: the sequence's name.
    path: its folder, video or annotation file.
    frames: how many frames could be decoded.
    labels: how many boxes the annotation has (0 when it cannot be read or there is none).
    absent: how many labels say that the target is not there.
    shapes: every shape that occurs, with its number of frames.
    mended: what the reader decided, as in `Sequence.mended`.
    errors: problems that `load` refuses or that make an evaluation or training wrong, one sentence each.
    warnings: what is worth a look.
    reach: the furthest right and lower edge of a box as a share of its frame, [2]; None without boxes and frames.
  """

  name: str
  path: str
  frames: int = 0
  labels: int = 0
  absent: int = 0
  shapes: dict[FrameShape, int] = dataclasses.field(default_factory=dict)
  mended: Mapping[str, int] = dataclasses.field(default_factory=dict)
  errors: list[str] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)
  reach: np.ndarray | None = None


@dataclasses.dataclass
class Report:
  """What was found in a data set; `lines()` is the readable form. `warnings`: what no single sequence shows."""

  sequences: list[SequenceReport]
  warnings: list[str] = dataclasses.field(default_factory=list)

  @property
  def num_errors(self) -> int:
    return sum(len(sequence.errors) for sequence in self.sequences)

  @property
  def num_warnings(self) -> int:
    return len(self.warnings) + sum(len(sequence.warnings) for sequence in self.sequences)

  def lines(self) -> list[str]:
    """Every problem under its sequence, then the totals."""
    lines = []
    for sequence in self.sequences:
      if sequence.errors or sequence.warnings:
        lines.append(f"{sequence.name}  ({sequence.path})")
        lines += [f"  error: {text}" for text in sequence.errors]
        lines += [f"  warning: {text}" for text in sequence.warnings]
    lines += [f"warning: {text}" for text in self.warnings]
    frames = sum(sequence.frames for sequence in self.sequences)
    labels = sum(sequence.labels for sequence in self.sequences)
    absent = sum(sequence.absent for sequence in self.sequences)
    shapes = sorted({shape for sequence in self.sequences for shape in sequence.shapes}, key=_wh)
    lines.append(f"{len(self.sequences)} sequences, {frames} frames decoded, {labels} labels, "
                 f"target absent in {absent} ({100 * absent / max(labels, 1):.2f} %)")
    lines.append("frame sizes: " + (", ".join(map(str, shapes)) or "none"))
    with_errors = sum(bool(sequence.errors) for sequence in self.sequences)
    lines.append(f"{self.num_errors} errors in {with_errors} sequences, {self.num_warnings} warnings")
    return lines


def check(format: str, root) -> Report:
  """Checks a whole data set; see `SequenceReport` for what is looked at.

  A box that shares no pixel with its frame is an error, one that sticks out by more than a pixel a warning, and so
  are frames that change their size inside a sequence, labels that the reader mended, and those of `suspicions`.

  Raises:
    UserError: unknown format, missing root, no sequences in it.
  """
  source = reader(format)
  pairs = []
  for name, path in find(format, root, frames=True):
    report = SequenceReport(name, os.fspath(path))
    pairs.append((report, path, _read_labels(source, path, report)))
  expected = sum(report.labels for report, _, _ in pairs)
  with tqdm.tqdm(total=expected or None, desc="decoding", unit="frame") as progress:
    for report, path, labels in pairs:
      frame_wh = _decode_all(source, path, report, progress)
      if labels is not None:
        _check_labels(labels, frame_wh, report)
  reports = [report for report, _, _ in pairs]
  reach = suspicions.confined([report.reach for report in reports if report.reach is not None])
  warnings = [] if reach is None else [
      f"{root}: no box of any sequence leaves the left {100 * reach[0]:.0f} % and the upper {100 * reach[1]:.0f} % of "
      "its frames; are the labels in pixels, and for frames of this size?"]
  return Report(reports, warnings)


def _read_labels(source, path, report) -> Labels | None:
  """The labels, or None after noting why there are none."""
  try:
    labels = read_labels(source, path)
  except NoLabels as error:
    if source is plain:  # The one format whose labels are optional.
      report.warnings.append(f"{error}; only the frames are checked")
    else:
      report.errors.append(str(error))
    return None
  except UserError as error:
    report.errors.append(str(error))
    return None
  report.labels = len(labels.boxes)
  return labels


def _decode_all(source, path, report, progress) -> np.ndarray | None:
  """Decodes all frames; returns their widths and heights, int [T, 2] (0 where unreadable), or None without frames."""
  frame_wh, unreadable = [], []
  try:
    media = source.find_media(path)
    report.warnings += naming_troubles(media) if isinstance(media, list) else []
    frames = ImageFiles(media) if isinstance(media, list) else open_media(media, report.labels)[0]
    if damage := frames.damage():
      report.warnings.append(damage)
    for frame in frames.readable():
      progress.update()
      if isinstance(frame, UserError):
        unreadable.append(str(frame))
        frame_wh.append((0, 0))
      else:
        shape = FrameShape(*frame.shape)
        report.shapes[shape] = report.shapes.get(shape, 0) + 1
        frame_wh.append(shape.wh)
  except UserError as error:
    report.errors.append(str(error))
    return None
  report.frames = len(frame_wh) - len(unreadable)
  unreadable = list(dict.fromkeys(unreadable))  # What is beyond a video's end says so with every frame.
  report.errors += unreadable[:_NAMED]
  if len(unreadable) > _NAMED:
    report.errors.append(f"{len(unreadable) - _NAMED} more unreadable frames")
  if len(report.shapes) > 1:
    shapes = ", ".join(f"{shape} ({report.shapes[shape]} frames)" for shape in sorted(report.shapes, key=_wh))
    report.warnings.append(f"the frame size changes inside the sequence: {shapes}")
  return np.array(frame_wh).reshape(-1, 2)


def _wh(shape: FrameShape) -> tuple[int, int]:
  return shape.wh


def _check_labels(labels, frame_wh, report):
  """Everything about the labels of one sequence; `frame_wh` as from `_decode_all`."""
  boxes = labels.boxes.astype(np.float64)
  if frame_wh is not None and len(frame_wh) != len(boxes):
    report.errors.append(f"{labels.where}: {len(boxes)} boxes for {len(frame_wh)} frames, expected one box per frame")
  absent = np.isnan(boxes).all(axis=1)
  broken = ~np.isfinite(boxes).all(axis=1) & ~absent
  negative = (boxes[:, 2:] < 0).any(axis=1) & ~broken
  _note(report.errors, labels.where, "have NaN or infinite numbers", broken)
  _note(report.errors, labels.where, "have a negative width or height", negative)
  boxes[absent | broken | negative] = 0
  try:
    sequence = from_labels(report.name, None, boxes, labels.visible, labels.where, frame_labels=labels.frame_labels)
    if frame_wh is not None and len(frame_wh) and frame_wh[0].all():
      check_shape(labels, FrameShape(*frame_wh[0, ::-1].tolist()))
  except UserError as error:
    report.errors.append(str(error))
    return
  report.absent, report.mended = int((~sequence.visible).sum()), dict(sequence.mended)
  report.warnings += [f"{labels.where}: {count} x {what}" for what, count in sequence.mended.items()]
  if not sequence.visible[0]:
    report.errors.append(f"{labels.where}: the target is absent in the first frame, a tracker cannot be started there")
  if frame_wh is not None:
    _check_against_frames(sequence, frame_wh, labels.where, report)


def _check_against_frames(sequence, frame_wh, where, report):
  count = min(len(sequence), len(frame_wh))
  boxes, frame_wh = sequence.boxes[:count].astype(np.float64), frame_wh[:count]
  visible = sequence.visible[:count] & (frame_wh > 0).all(axis=1)
  outside = visible & is_outside(boxes, frame_wh)
  beyond = ((boxes[:, :2] < -_MARGIN) | (boxes[:, :2] + boxes[:, 2:] > frame_wh + _MARGIN)).any(axis=1)
  hint = "; are the labels for frames of this size?" if 2 * outside.sum() > visible.sum() else ""
  _note(report.errors, where, "have a box outside of the frame", outside, hint)
  _note(report.warnings, where, f"have a box that sticks out of the frame by more than {_MARGIN:g} px",
        visible & beyond & ~outside)
  if visible.any():
    report.reach = ((boxes[visible, :2] + boxes[visible, 2:]) / frame_wh[visible]).max(axis=0)
    if suspicions.are_corners(boxes[visible], frame_wh[visible]):
      report.warnings.append(f"{where}: the boxes look like corners x1,y1,x2,y2, expected x,y,w,h")


def _note(notes, where, what, flags, hint=""):
  """One line for all frames with a problem: how many, and the first."""
  if flags.any():
    notes.append(f"{where}: {int(flags.sum())} frames {what}, the first is frame {int(np.argmax(flags))}{hint}")
