"""What a sequence is: frames, a box per frame, a visibility flag per frame, a name, attributes."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource


class FrameShape(NamedTuple):
  """How many pixels a frame has; its text is that of messages, `640x512` (columns x rows)."""

  rows: int
  columns: int

  @property
  def wh(self) -> tuple[int, int]:
    """(width, height), in the order of a box's numbers."""
    return self.columns, self.rows

  def __str__(self) -> str:
    return f"{self.columns}x{self.rows}"


@dataclasses.dataclass(frozen=True)
class Sequence:
  """One labelled infrared sequence.

  Attributes:
    name: unique within its data set.
    frames: the frame source, or None when only annotations were asked for.
    boxes: float32 [T, 4], xywh in pixels of the original frame, 0-based; all zero where the target is absent.
    visible: bool [T]. `visible[t]` is False exactly when `boxes[t]` is all zero.
    attributes: the benchmark's attribute names that hold for this sequence, e.g. ("SV", "TS").
    mended: what the reader had to decide, e.g. {"visible frame with a zero box": 3}.
    shape: of the frames; None when neither the frames nor the labels tell it.
    frame_labels: a benchmark's further labels by name, int [T] each: "absence", "cover" (GOT-10k, 0..8),
      "cut_by_image", "full_occlusion", "out_of_view", "absent" (LaSOT's toolkit: either); the others are 0 or 1.
    lookalikes: float32 [M, 5], boxes of what is not the target but may look like it: frame, x, y, w, h; several or none
      per frame. Only our simulator writes them.
  """

  name: str
  frames: FrameSource | None
  boxes: np.ndarray
  visible: np.ndarray
  attributes: tuple[str, ...] = ()
  mended: Mapping[str, int] = dataclasses.field(default_factory=dict)
  shape: FrameShape | None = None
  frame_labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  lookalikes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 5), np.float32))

  def __len__(self) -> int:
    return len(self.boxes)


def from_labels(name, frames, boxes, visible, where, attributes=(), shape=None, frame_labels=None,
                lookalikes=()) -> Sequence:
  """Checks and mends labels, the same way for every format.

  The rule (our choice, FIELD.md lists what occurs): a frame is visible when its flag says so *and* its box has
  positive width and height. Everything else is absent with a zero box; what was changed is counted in `mended`.

  Args:
    name: the sequence's name.
    frames: a FrameSource or None.
    boxes: [T, 4] xywh floats; NaN rows mean absent.
    visible: [T] flags, or None when the format has none (then the box alone decides).
    where: the annotation file, for error messages.
    attributes: attribute names.
    shape: of the frames, or None.
    frame_labels: further labels by name, [T] each.
    lookalikes: [M, 5], see `Sequence`.

  Raises:
    UserError: box and frame (or flag, or label) counts that differ, infinite or negative sizes, an empty annotation,
      look-alikes in frames that are not there.
  """
  boxes = np.array(boxes, np.float64).reshape(-1, 4)
  if not len(boxes):
    raise UserError(f"{where}: no boxes in it, expected one per frame")
  if frames is not None and len(frames) != len(boxes):
    raise UserError(f"{where}: {len(boxes)} boxes for {len(frames)} frames, expected one box per frame")
  missing = np.isnan(boxes).all(axis=1)
  boxes[missing] = 0
  bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
  if bad.any():
    t = int(np.argmax(bad))
    raise UserError(f"{where}: frame {t} has the box {boxes[t].tolist()}, expected finite x,y,w,h with w,h >= 0")
  positive = (boxes[:, 2:] > 0).all(axis=1)
  if visible is None:
    flags = positive
  else:
    flags = np.asarray(visible).astype(bool).reshape(-1)
    if len(flags) != len(boxes):
      raise UserError(f"{where}: {len(flags)} visibility flags for {len(boxes)} boxes, expected as many")
  for key, values in (frame_labels or {}).items():
    if len(values) != len(boxes):
      raise UserError(f"{where}: {len(values)} labels {key} for {len(boxes)} boxes, expected as many")
  mended = {
      "visible frame with a zero box, taken as absent": int((flags & ~positive).sum()),
      "absent frame with a real box, box dropped": int((~flags & positive).sum()),
  }
  lookalikes = np.array(lookalikes, np.float32).reshape(-1, 5)
  right = (lookalikes[:, 0] >= 0) & (lookalikes[:, 0] < len(boxes)) & (lookalikes[:, 0] % 1 == 0)
  right &= np.isfinite(lookalikes).all(axis=1) & (lookalikes[:, 3:] > 0).all(axis=1)
  if not right.all():
    raise UserError(f"{where}: a look-alike {lookalikes[np.argmin(right)].tolist()}, expected frame,x,y,w,h with a "
                    f"frame from 0 to {len(boxes) - 1} and w,h > 0")
  seen = flags & positive
  boxes = np.where(seen[:, None], boxes, 0).astype(np.float32)
  mended = {what: count for what, count in mended.items() if count}
  return Sequence(name, frames, boxes, seen, tuple(attributes), mended, shape, dict(frame_labels or {}), lookalikes)
