"""What a stream's frames were answered with, put together from the chunks of all lanes."""

from collections.abc import Mapping

import numpy as np

from siamdff_jax.results import Result
from siamdff_jax.tracking import lockstep
from siamdff_jax.tracking.chunks import Segment
from siamdff_jax.tracking.streams import Stream


class Collected:
  """One stream's answers so far.

  Attributes:
    seen: how many frames they are of.
  """

  def __init__(self, stream: Stream):
    count = len(stream.frames)
    self._stream, self.seen = stream, 0
    self._starts: list[int] = []
    self._boxes, self._score = np.full((count, 4), np.nan), np.full(count, np.nan)

  def __len__(self) -> int:
    return len(self._boxes)

  @property
  def name(self) -> str:
    """The stream's."""
    return self._stream.name

  @property
  def complete(self) -> bool:
    """Whether every announced frame has its answer."""
    return self.seen == len(self)

  @property
  def started(self) -> bool:
    """Whether there was a first frame to start from."""
    return bool(self._starts)

  def add(self, segment: Segment, answer: lockstep.Answer) -> None:
    """The frames of a segment. Where a track started the box is the one it was given, with score 1."""
    here = (slice(segment.slot, segment.slot + segment.length), segment.lane)
    event, output = answer.event[here], answer.output
    there = segment.start + np.flatnonzero((event == lockstep.TRACK) & output.present[here])
    tracked = segment.start + np.flatnonzero(event == lockstep.TRACK)
    self._boxes[there] = output.box[here][there - segment.start]
    self._score[tracked] = output.score[here][tracked - segment.start]
    self._score[segment.start + np.flatnonzero(event == lockstep.BLANK)] = 0.0
    for t in (segment.start + np.flatnonzero(event == lockstep.START)).tolist():
      self._boxes[t] = self._stream.start(t)
      self._score[t] = 1.0
      self._starts.append(t)
    self.seen += segment.length

  def result(self, incomplete: Mapping[str, int | str] | None = None) -> Result:
    """Of the frames seen so far."""
    return Result(self._boxes[:self.seen], score=self._score[:self.seen], starts=tuple(self._starts),
                  incomplete=incomplete)
