"""The host's side of lockstep tracking: which lane follows what, and frames decoded ahead of the device."""

import collections
import itertools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from input_pipeline.sequences import FrameShape
from siamdff_jax.tracking.lockstep import BLANK, IDLE, START, TRACK, Inputs
from siamdff_jax.tracking.reading import Notes, frames_to_track
from siamdff_jax.tracking.streams import Stream

_AHEAD = 2  # Chunks that are decoded before they are asked for.


class Segment(NamedTuple):
  """Frames `start` to `start + length` of stream number `stream`, in lane `lane` from slot `slot` of the chunk on."""

  stream: int
  start: int
  length: int
  lane: int
  slot: int


def plan(lengths: Iterable[int], lanes: int, chunk: int) -> Iterator[list[Segment]]:
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


def read_chunks(streams: Sequence[Stream], shapes: Sequence[FrameShape], *, lanes: int, chunk: int,
                canvas: FrameShape, reset: bool = False,
                notes: Sequence[Notes] | None = None) -> Generator[tuple[Inputs, list[Segment]], None, None]:
  """The chunks of `plan`, decoded by threads while the caller does something else.

  The arrays are used again: those of a chunk are valid until the second chunk after it is asked for.

  Args:
    streams: with at least one frame each.
    shapes: of each stream's frames.
    lanes, chunk: see `plan`.
    canvas: at least as large as every frame.
    reset: the truth of every frame goes along, not only the first box.
    notes: per stream, filled in as its frames are read.
  """
  notes = [Notes() for _ in streams] if notes is None else notes
  buffers = [empty_inputs(lanes, chunk, canvas) for _ in range(_AHEAD + 2)]
  readers = [_LaneReader(streams, shapes, notes, reset) for _ in range(lanes)]
  pending: collections.deque[tuple[Inputs, list[Segment], list[Future]]] = collections.deque()
  pool = ThreadPoolExecutor(min(lanes, len(os.sched_getaffinity(0))), "decode")
  last: list[Future | None] = [None] * lanes

  def submit(segments: list[Segment], buffer: Inputs) -> None:
    buffer.phase[:] = IDLE
    futures = []
    for lane, found in itertools.groupby(segments, lambda segment: segment.lane):  # In order, see `plan`.
      future = pool.submit(readers[lane].fill, buffer, list(found), last[lane])
      last[lane] = future
      futures.append(future)
    pending.append((buffer, segments, futures))

  def take() -> tuple[Inputs, list[Segment]]:
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


def empty_inputs(lanes: int, chunk: int, canvas: FrameShape) -> Inputs:
  """Arrays for a chunk in which no lane has anything to do."""
  lead = (chunk, lanes)
  return Inputs(np.zeros((*lead, *canvas), np.uint8), np.ones((*lead, 2), np.int32), np.zeros((*lead, 4), np.float32),
                np.full(lead, IDLE, np.int8))


class _LaneReader:
  """Fills one lane of the buffers; the frames come from one iterator per stream, which is what videos are fast with."""

  def __init__(self, streams: Sequence[Stream], shapes: Sequence[FrameShape], notes: Sequence[Notes], reset: bool):
    self._streams, self._shapes, self._notes, self._reset = streams, shapes, notes, reset
    self._frames: Iterator[tuple[np.ndarray | None, bool]] = iter(())

  def fill(self, buffer: Inputs, segments: list[Segment], before: Future | None) -> None:
    """`before`: this lane's chunk before, which runs already or is done: the pool takes tasks in their order."""
    if before is not None:
      before.result()
    for number, start, length, lane, slot in segments:
      stream, shape = self._streams[number], self._shapes[number]
      here = (slice(slot, slot + length), lane)
      buffer.shape[here] = shape
      if self._reset:
        assert stream.truth is not None  # `check_stream` has seen to it.
        buffer.box[here] = stream.truth[start:start + length]
      if start == 0:
        self._frames = frames_to_track(stream, shape, self._notes[number], self._reset)
        buffer.box[slot, lane] = stream.box
      for t, i in enumerate(range(slot, slot + length), start):
        frame, shows = next(self._frames)
        buffer.phase[i, lane] = (TRACK if t else START) if shows else BLANK
        if frame is not None:
          buffer.frame[i, lane, :shape[0], :shape[1]] = frame
      if start + length == len(stream.frames):
        self._frames = iter(())  # Lets go of the file.
