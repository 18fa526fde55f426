"""What is tracked: a target in a stream of frames, and whether a track of it can be started."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from input_pipeline.datasets.loading import is_outside
from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource
from input_pipeline.sequences import FrameShape
from siamdff_jax.results import Result

_CANVAS_UNIT = 64  # Canvases are rounded up to it, so that data sets of nearly equal frames share a compiled program.


class Stream(NamedTuple):
  """One target to follow.

  Attributes:
    name: for results and errors.
    frames: the frames, all of one size.
    box: float [4] xywh, the target in the first frame.
    truth: float [T, 4] xywh, zeros where it is absent; only reset-based runs need it.
    shape: of the frames where it is known; None decodes the first frame to see.
  """

  name: str
  frames: FrameSource
  box: np.ndarray
  truth: np.ndarray | None = None
  shape: FrameShape | None = None

  def start(self, t: int) -> np.ndarray:
    """[4] xywh, what a track that begins with frame `t` is given: the truth where that is not the first."""
    if t == 0:
      return self.box
    assert self.truth is not None  # `check_stream` wants it for reset-based runs; others begin once.
    return self.truth[t]


class BrokenStreams(UserError):
  """Some streams broke while they were tracked; all others have been given to the caller.

  Attributes:
    errors: by stream name.
    partial: results by stream name, what was found before the break.
  """

  def __init__(self, errors: Mapping[str, UserError], partial: Mapping[str, Result]):
    first, more = next(iter(errors.values())), len(errors) - 1
    super().__init__(f"{first}, and {more} more" if more else str(first))
    self.errors, self.partial = dict(errors), dict(partial)


def check_box(box: np.ndarray, shape: FrameShape, where: str) -> None:
  """Raises UserError unless the box has a size and shares a pixel with the frame."""
  x, y, w, h = (float(v) for v in box)
  if not (np.isfinite([x, y, w, h]).all() and w > 0 and h > 0):
    raise UserError(f"{where}: the box {[x, y, w, h]} has no size, expected x,y,w,h with w,h > 0")
  if is_outside([[x, y, w, h]], shape.wh)[0]:
    raise UserError(f"{where}: the box {[x, y, w, h]} lies outside the frame of {shape} pixels")


def check_stream(stream: Stream, reset: bool) -> FrameShape:
  """The shape of a stream's frames.

  Raises:
    UserError: a first frame that cannot be read, or a box that `check_box` refuses.
    ValueError: a reset-based run without the truth.
  """
  if reset and (stream.truth is None or len(stream.truth) != len(stream.frames)):
    raise ValueError(f"{stream.name}: a reset-based run needs the truth of each of the {len(stream.frames)} frames")
  shape = frame_shape(stream)
  check_box(stream.box, shape, stream.name)
  return shape


def check_streams(streams: Iterable[Stream],
                  reset: bool) -> tuple[list[Stream], list[FrameShape], dict[str, UserError]]:
  """The streams that can be started, the longest first, the shape of each, and by name why others cannot."""
  started, shapes, errors = [], [], {}
  for stream in sorted(streams, key=lambda s: (-len(s.frames), s.name)):
    try:
      shapes.append(check_stream(stream, reset))
      started.append(stream)
    except UserError as error:
      errors[stream.name] = error
  return started, shapes, errors


def frame_shape(stream: Stream) -> FrameShape:
  """The shape of a stream's frames."""
  if stream.shape is not None:
    return stream.shape
  return FrameShape(*next(iter(stream.frames)).shape)  # Unlike `frames[0]` this leaves no video open.


def canvas(shapes: Iterable[FrameShape]) -> FrameShape:
  """The smallest canvas for frames of all these shapes."""
  return FrameShape(*(-(-max(sides) // _CANVAS_UNIT) * _CANVAS_UNIT for sides in zip(*shapes, strict=True)))


def on_canvas(frame: np.ndarray, shape: FrameShape) -> np.ndarray:
  """uint8 `shape` with the frame in the top left, zero elsewhere."""
  out = np.zeros(shape, np.uint8)
  out[:frame.shape[0], :frame.shape[1]] = frame
  return out
