"""The host's side of lockstep tracking: which lane follows what, and frames decoded ahead of the device."""

import collections
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.frames import FrameSource
from siamdff_jax.tracking.lockstep import IDLE, START, TRACK, Inputs

_AHEAD = 2  # Chunks that are decoded before they are asked for.
_CANVAS_UNIT = 64  # Canvases are rounded up to it, so that data sets of nearly equal frames share a compiled program.


class Stream(NamedTuple):
  """One target to follow.

  Attributes:
    name: for results and errors.
    frames: the frames, all of one size.
    box: float [4] xywh, the target in the first frame.
    truth: float [T, 4] xywh, zeros where it is absent; only reset-based runs need it.
    size: (width, height) of the frames where it is known; None decodes the first frame to see.
  """

  name: str
  frames: FrameSource
  box: np.ndarray
  truth: np.ndarray | None = None
  size: tuple[int, int] | None = None


class BrokenStreams(DataError):
  """Some streams broke while they were tracked; all others have been given to the caller.

  Attributes:
    errors: by stream name.
    partial: by stream name, what was found before the break.
  """

  def __init__(self, errors: Mapping[str, DataError], partial: Mapping):
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


def check_box(box: np.ndarray, frame_shape: tuple[int, int], where: str):
  """Raises DataError unless the box has a size and its centre lies inside the frame [H, W]."""
  height, width = frame_shape
  x, y, w, h = (float(v) for v in box)
  if not (np.isfinite([x, y, w, h]).all() and w > 0 and h > 0):
    raise DataError(f"{where}: the box {[x, y, w, h]} has no size, expected x,y,w,h with w,h > 0")
  if not (0 <= x + w / 2 < width and 0 <= y + h / 2 < height):
    raise DataError(f"{where}: the box {[x, y, w, h]} lies outside the frame of {width}x{height} pixels")


def check_stream(stream: Stream, shape: tuple[int, int], reset: bool):
  """Raises DataError for a box that `check_box` refuses, and ValueError for a reset-based run without the truth."""
  check_box(stream.box, shape, stream.name)
  if reset and (stream.truth is None or len(stream.truth) != len(stream.frames)):
    raise ValueError(f"{stream.name}: a reset-based run needs the truth of each of the {len(stream.frames)} frames")


def frame_shape(stream: Stream) -> tuple[int, int]:
  """(rows, columns) of a stream's frames."""
  if stream.size is not None:
    return stream.size[1], stream.size[0]
  return next(iter(stream.frames)).shape  # Unlike `frames[0]` this leaves no video open.


def canvas(shapes) -> tuple[int, int]:
  """The smallest canvas [H, W] for frames of all these shapes."""
  return tuple(-(-max(sides) // _CANVAS_UNIT) * _CANVAS_UNIT for sides in zip(*shapes))


def on_canvas(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """uint8 `shape` with the frame in the top left, zero elsewhere."""
  out = np.zeros(shape, np.uint8)
  out[:frame.shape[0], :frame.shape[1]] = frame
  return out


def checked_frames(stream: Stream, shape: tuple[int, int]) -> Iterator[np.ndarray]:
  """The stream's frames; raises DataError where one has another shape, or where there are fewer than announced."""
  count = 0
  for frame in stream.frames:
    if frame.shape != shape:
      raise DataError(f"{stream.name}: frame {count} is {frame.shape[1]}x{frame.shape[0]} pixels, expected "
                      f"{shape[1]}x{shape[0]} as in the frames before or as labelled")
    yield frame
    count += 1
  if count < len(stream.frames):
    raise DataError(f"{stream.name}: the frames end after {count}, {len(stream.frames)} were expected")


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
                canvas: tuple[int, int], reset: bool = False) -> Iterator[tuple[Inputs, list[Segment]]]:
  """The chunks of `plan`, decoded by threads while the caller does something else.

  The arrays are used again: those of a chunk are valid until the second chunk after it is asked for.

  Args:
    streams: with at least one frame each.
    shapes: (rows, columns) per stream.
    lanes, chunk: see `plan`.
    canvas: [H, W] at least as large as every frame.
    reset: the truth of every frame goes along, not only the first box.

  Raises:
    DataError: a frame that cannot be read, or has another shape.
  """
  buffers = [_buffer(lanes, chunk, canvas) for _ in range(_AHEAD + 2)]
  readers = [_LaneReader(streams, shapes, reset) for _ in range(lanes)]
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

  def __init__(self, streams, shapes, reset):
    self._streams, self._shapes, self._reset = streams, shapes, reset
    self._frames = iter(())

  def fill(self, buffer: Inputs, segments: list[Segment], before: Future | None):
    """`before`: this lane's chunk before, which runs already or is done: the pool takes tasks in their order."""
    if before is not None:
      before.result()
    for stream_number, start, count, lane, slot in segments:
      stream, shape = self._streams[stream_number], self._shapes[stream_number]
      here = (slice(slot, slot + count), lane)
      buffer.phase[here], buffer.size[here] = TRACK, shape
      if self._reset:
        buffer.box[here] = stream.truth[start:start + count]
      if start == 0:
        self._frames = checked_frames(stream, shape)
        buffer.phase[slot, lane], buffer.box[slot, lane] = START, stream.box
      for i in range(slot, slot + count):
        buffer.frame[i, lane, :shape[0], :shape[1]] = next(self._frames)
      if start + count == len(stream.frames):
        self._frames = iter(())  # Lets go of the file.
