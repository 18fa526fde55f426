"""Runs a tracker over whole sequences, many in lockstep, frames in chunks: one compiled program."""

import contextlib
import functools
import os
import time
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from siamdff_jax.results import Result
from siamdff_jax.tracking import lockstep
from siamdff_jax.tracking.reading import BrokenStreams, Notes, Segment, Stream, canvas, check_streams, read_chunks
from siamdff_jax.tracking.tracker import Tracker

AXIS = "lanes"
_WHOLE, _BY_LANE, _BY_FRAME = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)


def one_device_per_core():
  """Lets JAX see every processor core as a device, so that each core has lanes of its own.

  On CPUs that is faster than all cores on one lane after the other. It has to come before JAX looks for devices, and
  changes nothing where JAX runs on an accelerator.
  """
  jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


class Runner:
  """Tracks streams with one set of weights, on the devices of this process; hosts share the streams one level up.

  Attributes:
    frames_tracked, seconds: of all calls so far; decoding included, compilation not.
  """

  def __init__(self, tracker: Tracker, variables, *, streams: int = 8, chunk: int = 8, reset: bool = False,
               form: lockstep.Form | None = None, devices=None, progress: bool = True):
    """
    Args:
      tracker, variables: what to run.
      streams: sequences in lockstep, rounded up to a multiple of the devices.
      chunk: frames per call of the program.
      reset: start anew after failures (see `lockstep`); every stream needs its truth.
      form: see `lockstep.default_form`, which None takes.
      devices: default all local ones, of which no more are used than needed.
      progress: whether to show it.
    """
    form = form or lockstep.default_form()
    least = lockstep.FEWEST[form]
    devices = list(devices or jax.local_devices())[:max(streams, least)]
    mesh = Mesh(np.array(devices), (AXIS,))
    self._whole, self._by_lane, self._by_frame = (NamedSharding(mesh, how) for how in (_WHOLE, _BY_LANE, _BY_FRAME))
    self._lanes = max(-(-streams // len(devices)), least) * len(devices)
    self._tracker, self._variables = tracker, jax.device_put(variables, self._whole)
    self._chunk, self._reset, self._progress = chunk, reset, progress
    self._fixed = (tracker, mesh, reset, form)
    self._compiled, self._collected = {}, {}
    self.frames_tracked, self.seconds = 0, 0.0

  def load(self, variables):
    """Other weights of the same shapes, for the programs that are compiled already."""
    self._variables = jax.device_put(variables, self._whole)

  @property
  def fps(self) -> float:
    """Frames per second of all streams together; NaN before the first."""
    return self.frames_tracked / self.seconds if self.seconds else float("nan")

  def run(self, streams: Iterable[Stream]) -> Iterator[tuple[str, Result]]:
    """Yields (name, result) as each stream ends; the longest are begun first, so that lanes end together.

    A frame that cannot be read, or that shows nothing (see `reading.frames_to_track`), counts as absent, score 0.

    Raises:
      BrokenStreams: when all others are done: first boxes outside their frames, frames that cannot be read.
      ValueError: a reset-based run of a stream without one truth per frame.
    """
    streams, shapes, errors = check_streams(streams, self._reset)
    notes, partial = [Notes() for _ in streams], {}
    with contextlib.closing(self._tracked(streams, shapes, notes)) as ended:
      for number, collected in ended:
        name, count = streams[number].name, len(streams[number].frames)
        notes[number].say(name, count)
        error = notes[number].broken(count)
        if error is None:
          yield name, collected.result()
          continue
        errors[name] = error
        if collected.started:
          partial[name] = collected.result(notes[number].incomplete(count))
    if errors:
      raise BrokenStreams(dict(sorted(errors.items())), partial)

  def unfinished(self, why: str) -> dict[str, Result]:
    """By name, the first frames of the streams that the last call of `run` has begun and not ended; `why` not."""
    return {found.name: found.result({"tracked": found.seen, "announced": len(found), "why": why})
            for found in self._collected.values() if found.started}

  def _tracked(self, streams, shapes, notes) -> Iterator[tuple[int, "_Collected"]]:
    """Yields (number, answers) as each stream ends."""
    self._collected = {}
    if not streams:
      return
    program, done = self._program(canvas(shapes)), 0
    total = sum(len(stream.frames) for stream in streams)
    with (tqdm(total=total, unit="frame", desc="track", mininterval=1, dynamic_ncols=True,
               disable=not self._progress) as progress,
          contextlib.closing(self._answers(program, streams, shapes, notes)) as answers):
      started = time.perf_counter()
      for answer, segments in answers:
        for segment in segments:
          self._collected.setdefault(segment.stream, _Collected(streams[segment.stream])).add(segment, answer)
        frames = sum(segment.count for segment in segments)
        self.frames_tracked += frames
        self.seconds += time.perf_counter() - started
        ended = [number for number, found in self._collected.items() if found.complete]
        done += len(ended)
        progress.set_postfix_str(f"{done}/{len(streams)} sequences", refresh=False)
        progress.update(frames)
        for number in ended:
          yield number, self._collected[number]
          del self._collected[number]
        started = time.perf_counter()

  def _program(self, frame_shape: tuple[int, int]):
    """The compiled `lockstep.advance` for canvases [H, W]; compiled once."""
    if frame_shape not in self._compiled:
      lead = (self._chunk, self._lanes)
      shape = lambda dtype, *sides: jax.ShapeDtypeStruct((*lead, *sides), dtype, sharding=self._by_frame)
      inputs = lockstep.Inputs(shape(np.uint8, *frame_shape), shape(np.int32, 2), shape(np.float32, 4), shape(np.int8))
      lowered = _advance.lower(*self._fixed, self._variables, self._empty_lanes(), inputs)
      self._compiled[frame_shape] = lowered.compile()
    return self._compiled[frame_shape]

  def _empty_lanes(self):
    return jax.device_put(lockstep.empty(self._tracker, self._variables, self._lanes), self._by_lane)

  def _answers(self, program, streams, shapes, notes) -> Iterator[tuple[lockstep.Answer, list[Segment]]]:
    """Per chunk, as numpy. The next chunk is handed to the devices before the answers to the last are waited for."""
    lanes, running = self._empty_lanes(), None
    chunks = read_chunks(streams, shapes, lanes=self._lanes, chunk=self._chunk, canvas=canvas(shapes),
                         reset=self._reset, notes=notes)
    with contextlib.closing(chunks):
      for inputs, segments in chunks:
        # Where device arrays share memory with `inputs`, that is used again only after these answers are there.
        lanes, answer = program(self._variables, lanes, jax.device_put(inputs, self._by_frame))
        if running:
          yield jax.device_get(running[0]), running[1]
        running = (answer, segments)
      yield jax.device_get(running[0]), running[1]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def _advance(tracker, mesh, reset, form, variables, lanes, inputs):
  """`lockstep.advance`; each device runs its own lanes, and nothing crosses between devices."""
  advance = functools.partial(lockstep.advance, tracker, reset=reset, form=form)
  return jax.shard_map(advance, mesh=mesh, in_specs=(_WHOLE, _BY_LANE, _BY_FRAME), out_specs=(_BY_LANE, _BY_FRAME),
                       check_vma=False)(variables, lanes, inputs)


class _Collected:
  """One stream's answers so far."""

  def __init__(self, stream: Stream):
    count = len(stream.frames)
    self._stream, self.seen, self._starts = stream, 0, []
    self._boxes, self._score = np.full((count, 4), np.nan), np.full(count, np.nan)

  def __len__(self) -> int:
    return len(self._boxes)

  @property
  def name(self) -> str:
    return self._stream.name

  @property
  def complete(self) -> bool:
    return self.seen == len(self)

  @property
  def started(self) -> bool:
    """Whether there was a first frame to start from."""
    return bool(self._starts)

  def add(self, segment: Segment, answer: lockstep.Answer):
    """The frames of a segment. Where a track started the box is the one it was given, with score 1."""
    here = (slice(segment.slot, segment.slot + segment.count), segment.lane)
    event, output = answer.event[here], answer.output
    there = segment.start + np.flatnonzero((event == lockstep.TRACK) & output.present[here])
    tracked = segment.start + np.flatnonzero(event == lockstep.TRACK)
    self._boxes[there] = output.box[here][there - segment.start]
    self._score[tracked] = output.score[here][tracked - segment.start]
    self._score[segment.start + np.flatnonzero(event == lockstep.BLANK)] = 0.0
    for t in segment.start + np.flatnonzero(event == lockstep.START):
      self._boxes[t] = self._stream.truth[t] if t else self._stream.box
      self._score[t] = 1.0
      self._starts.append(int(t))
    self.seen += segment.count

  def result(self, incomplete: Mapping | None = None) -> Result:
    """Of the frames seen so far."""
    return Result(self._boxes[:self.seen], score=self._score[:self.seen], starts=tuple(self._starts),
                  incomplete=incomplete)
