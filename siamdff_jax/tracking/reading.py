"""The host's side of lockstep tracking: which lane follows what, and frames decoded ahead of the device."""

import collections
import dataclasses
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from input_pipeline import geometry
from input_pipeline.datasets.loading import is_outside
from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource
from input_pipeline.sequences import FrameShape
from siamdff_jax.tracking.lockstep import BLANK, IDLE, START, TRACK, Inputs

_log = logging.getLogger(__name__)

_AHEAD = 2  # Chunks that are decoded before they are asked for.
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


class BrokenStreams(UserError):
  """Some streams broke while they were tracked; all others have been given to the caller.

  Attributes:
    errors: by stream name.
    partial: by stream name, what was found before the break.
  """

  def __init__(self, errors: Mapping[str, UserError], partial: Mapping):
    first, more = next(iter(errors.values())), len(errors) - 1
    super().__init__(f"{first}, and {more} more" if more else str(first))
    self.errors, self.partial = dict(errors), dict(partial)


class Segment(NamedTuple):
  """Frames `start` to `start + count` of stream number `stream`, in lane `lane` from slot `slot` of the chunk on."""

  stream: int
  start: int
  count: int
  lane: int
  slot: int


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

  def incomplete(self, count: int) -> dict | None:
    """What is missing in the result, see `Result`; None where nothing is."""
    if self.error is None:
      return None
    return {"tracked": count - self.unreadable, "announced": count, "why": str(self.error)}

  def say(self, where: str, count: int):
    """Tells the user of frames that show nothing, of `count`."""
    if self.nothing_to_follow:
      _log.warning("%s: the first frame has one grey level only around the target, so there is nothing to follow; the "
                   "target counts as absent", where)
    if self.uniform:
      _log.warning("%s: %d of %d frames have one grey level only, the target counts as absent in them", where,
                   self.uniform, count)


def check_box(box: np.ndarray, shape: FrameShape, where: str):
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
                  reset: bool) -> tuple[list[Stream], list[tuple[int, int]], dict[str, UserError]]:
  """The streams that can be started, the longest first, (rows, columns) of each, and by name why others cannot."""
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


def canvas(shapes) -> tuple[int, int]:
  """The smallest canvas [H, W] for frames of all these shapes."""
  return tuple(-(-max(sides) // _CANVAS_UNIT) * _CANVAS_UNIT for sides in zip(*shapes))


def on_canvas(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """uint8 `shape` with the frame in the top left, zero elsewhere."""
  out = np.zeros(shape, np.uint8)
  out[:frame.shape[0], :frame.shape[1]] = frame
  return out


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
      visible = np.flatnonzero((stream.truth[1:, 2:] > 0).all(axis=1)) if reset else ()
      blind = 2 + visible[0] if len(visible) else len(stream.frames)
    yield frame, t == 0 or not (uniform or t < blind)


def _announced(stream: Stream, shape: FrameShape) -> Iterator[np.ndarray | UserError]:
  """All announced frames, or the errors that they give."""
  count, found = len(stream.frames), 0
  for frame in itertools.islice(_readable(stream.frames), count):
    if not isinstance(frame, UserError) and frame.shape != shape:
      frame = UserError(f"{stream.name}: frame {found} is {FrameShape(*frame.shape)} pixels, expected {shape} as "
                        "in the frames before or as labelled")
    yield frame
    found += 1
  missing = UserError(f"{stream.name}: the frames end after {found}, {count} were expected")
  yield from itertools.repeat(missing, count - found)


def _readable(frames) -> Iterator[np.ndarray | UserError]:
  """`FrameSource.readable`; any other sequence of frames is read up to its first error."""
  if hasattr(frames, "readable"):
    yield from frames.readable()
    return
  try:
    yield from frames
  except UserError as error:
    yield error


def _surroundings(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
  """The pixels that the template of a box is made of; at least one, as the box shares one with the frame."""
  x, y, side = geometry.template_window(np.asarray(box, np.float64))
  first = [int(np.floor(centre - side / 2)) - 1 for centre in (y, x)]
  last = [int(np.ceil(centre + side / 2)) + 2 for centre in (y, x)]
  rows, columns = (slice(min(max(a, 0), length - 1), max(b, 1)) for a, b, length in zip(first, last, frame.shape))
  return frame[rows, columns]


def plan(lengths: list[int], lanes: int, chunk: int) -> Iterator[list[Segment]]:
  """Chunk by chunk what every lane follows: a lane whose stream has ended takes the next one in the same chunk.

  Args:
    lengths: frames per stream, in the order in which they are taken.
    lanes: how many streams at a time.
    chunk: frames per lane in a chunk.
  """
  waiting = collections.deque(enumerate(lengths))
  current = [(0, 0, 0)] * lanes  # (stream, next frame, length) of every lane.
  while True:
    segments = []
    for lane in range(lanes):
      slot = 0
      while slot < chunk:
        stream, start, length = current[lane]
        if start == length:
          if not waiting:
            break
          stream, length = waiting.popleft()
          start = 0
        count = min(length - start, chunk - slot)
        segments.append(Segment(stream, start, count, lane, slot))
        current[lane] = (stream, start + count, length)
        slot += count
    if not segments:
      return
    yield segments


def read_chunks(streams: list[Stream], shapes: list[tuple[int, int]], *, lanes: int, chunk: int,
                canvas: tuple[int, int], reset: bool = False,
                notes: list[Notes] | None = None) -> Iterator[tuple[Inputs, list[Segment]]]:
  """The chunks of `plan`, decoded by threads while the caller does something else.

  The arrays are used again: those of a chunk are valid until the second chunk after it is asked for.

  Args:
    streams: with at least one frame each.
    shapes: (rows, columns) per stream.
    lanes, chunk: see `plan`.
    canvas: [H, W] at least as large as every frame.
    reset: the truth of every frame goes along, not only the first box.
    notes: per stream, filled in as its frames are read.
  """
  notes = [Notes() for _ in streams] if notes is None else notes
  buffers = [_buffer(lanes, chunk, canvas) for _ in range(_AHEAD + 2)]
  readers = [_LaneReader(streams, shapes, notes, reset) for _ in range(lanes)]
  pending = collections.deque()
  pool = ThreadPoolExecutor(min(lanes, len(os.sched_getaffinity(0))), "decode")
  last: list[Future | None] = [None] * lanes

  def submit(segments, buffer):
    buffer.phase[:] = IDLE
    by_lane = collections.defaultdict(list)
    for segment in segments:
      by_lane[segment.lane].append(segment)
    for lane, found in by_lane.items():
      last[lane] = pool.submit(readers[lane].fill, buffer, found, last[lane])
    pending.append((buffer, segments, [last[lane] for lane in by_lane]))

  def take():
    buffer, segments, futures = pending.popleft()
    for future in futures:
      future.result()
    return buffer, segments

  try:
    for number, segments in enumerate(plan([len(s.frames) for s in streams], lanes, chunk)):
      submit(segments, buffers[number % len(buffers)])
      if len(pending) > _AHEAD:
        yield take()
    while pending:
      yield take()
  finally:
    pool.shutdown(cancel_futures=True)


def _buffer(lanes, chunk, canvas) -> Inputs:
  lead = (chunk, lanes)
  return Inputs(np.zeros((*lead, *canvas), np.uint8), np.ones((*lead, 2), np.int32), np.zeros((*lead, 4), np.float32),
                np.full(lead, IDLE, np.int8))


class _LaneReader:
  """Fills one lane of the buffers; the frames come from one iterator per stream, which is what videos are fast with."""

  def __init__(self, streams, shapes, notes, reset):
    self._streams, self._shapes, self._notes, self._reset = streams, shapes, notes, reset
    self._frames = iter(())

  def fill(self, buffer: Inputs, segments: list[Segment], before: Future | None):
    """`before`: this lane's chunk before, which runs already or is done: the pool takes tasks in their order."""
    if before is not None:
      before.result()
    for stream_number, start, count, lane, slot in segments:
      stream, shape = self._streams[stream_number], self._shapes[stream_number]
      here = (slice(slot, slot + count), lane)
      buffer.size[here] = shape
      if self._reset:
        buffer.box[here] = stream.truth[start:start + count]
      if start == 0:
        self._frames = frames_to_track(stream, shape, self._notes[stream_number], self._reset)
        buffer.box[slot, lane] = stream.box
      for t, i in enumerate(range(slot, slot + count), start):
        frame, shows = next(self._frames)
        buffer.phase[i, lane] = (TRACK if t else START) if shows else BLANK
        if frame is not None:
          buffer.frame[i, lane, :shape[0], :shape[1]] = frame
      if start + count == len(stream.frames):
        self._frames = iter(())  # Lets go of the file.
