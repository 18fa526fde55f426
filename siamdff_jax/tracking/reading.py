"""The frames of one stream as a tracker is to see them: those that cannot be read or show nothing are told apart."""

import dataclasses
import itertools
import logging
from collections.abc import Iterator

import numpy as np

from input_pipeline import geometry
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape
from siamdff_jax.tracking.streams import Stream

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Notes:
  """What is noticed of one stream's frames while they are read.

  Attributes:
    error: of the first frame that cannot be read; None where all can.
    unreadable: how many frames cannot be read.
    uniform: how many frames have one grey level only.
    nothing_to_follow: whether the first frame has one grey level only around the target.
  """

  error: UserError | None = None
  unreadable: int = 0
  uniform: int = 0
  nothing_to_follow: bool = False

  def broken(self, count: int) -> UserError | None:
    """The error of a stream with `count` announced frames; None where all of them could be read."""
    if self.error is None or self.unreadable == count:
      return self.error
    return UserError(f"{self.error}; of {count} announced frames {count - self.unreadable} could be read")

  def incomplete(self, count: int) -> dict[str, int | str] | None:
    """What is missing in the result, see `Result`; None where nothing is."""
    if self.error is None:
      return None
    return {"tracked": count - self.unreadable, "announced": count, "why": str(self.error)}

  def say(self, where: str, count: int) -> None:
    """Tells the user of frames that show nothing, of `count`."""
    if self.nothing_to_follow:
      _log.warning("%s: the first frame has one grey level only around the target, so there is nothing to follow; the "
                   "target counts as absent", where)
    if self.uniform:
      _log.warning("%s: %d of %d frames have one grey level only, the target counts as absent in them", where,
                   self.uniform, count)


def is_uniform(pixels: np.ndarray) -> bool:
  """Whether all pixels [H, W] have one grey level. Of other pictures hardly more than one row is looked at."""
  row = pixels[len(pixels) // 2]
  return bool((row == row[0]).all() and (pixels == row[0]).all())


def frames_to_track(stream: Stream, shape: FrameShape, notes: Notes,
                    reset: bool = False) -> Iterator[tuple[np.ndarray | None, bool]]:
  """Yields every announced frame, None in the place of one that cannot be read, and whether it shows anything.

  A frame of one grey level shows nothing (a thermal camera's shutter, a lens cap): the target is absent, what is known
  of it stays as it was. Where the first frame has one grey level around the target, no later frame shows what was
  asked for; in reset-based runs it is lost in the next frame in which it is visible, as after any failure.

  Args:
    stream: what to track.
    shape: of its frames.
    notes: what is noticed is entered there.
    reset: whether the run is reset-based.
  """
  blind = 0  # Frames before this one show nothing, whatever is in them.
  for t, frame in enumerate(_announced(stream, shape)):
    if isinstance(frame, UserError):
      notes.error = notes.error or frame
      notes.unreadable += 1
      if t == 0:  # There is nothing to start from, so that the others need not be read.
        notes.unreadable = len(stream.frames)
        yield from itertools.repeat((None, False), len(stream.frames))
        return
      yield None, False
      continue
    uniform = is_uniform(frame)
    notes.uniform += uniform
    if t == 0 and is_uniform(_surroundings(frame, stream.box)):
      notes.nothing_to_follow = True
      blind = _until_lost(stream) if reset else len(stream.frames)
    yield frame, t == 0 or not (uniform or t < blind)


def _announced(stream: Stream, shape: FrameShape) -> Iterator[np.ndarray | UserError]:
  """All announced frames, or the errors that they give."""
  count, found = len(stream.frames), 0
  for frame in itertools.islice(stream.frames.readable(), count):
    if not isinstance(frame, UserError) and frame.shape != shape:
      frame = UserError(f"{stream.name}: frame {found} is {FrameShape(*frame.shape)} pixels, expected {shape} as "
                        "in the frames before or as labelled")
    yield frame
    found += 1
  missing = UserError(f"{stream.name}: the frames end after {found}, {count} were expected")
  yield from itertools.repeat(missing, count - found)


def _until_lost(stream: Stream) -> int:
  """The first frame after that in which a target that never was seen counts as lost; the end where it stays absent."""
  assert stream.truth is not None  # `check_stream` wants it for reset-based runs.
  visible = np.flatnonzero((stream.truth[1:, 2:] > 0).all(axis=1))
  return 2 + int(visible[0]) if len(visible) else len(stream.frames)


def _surroundings(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
  """The pixels that the template of a box is made of; at least one, as the box shares one with the frame."""
  x, y, side = geometry.template_window(np.asarray(box, np.float64))
  first = [int(np.floor(centre - side / 2)) - 1 for centre in (y, x)]
  last = [int(np.ceil(centre + side / 2)) + 2 for centre in (y, x)]
  rows, columns = (slice(min(max(a, 0), length - 1), max(b, 1))
                   for a, b, length in zip(first, last, frame.shape, strict=True))
  return frame[rows, columns]
