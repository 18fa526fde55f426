"""Runs a tracker over whole sequences, many in lockstep, frames in chunks: one compiled program."""

import contextlib
import functools
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from input_pipeline.sequences import FrameShape
from siamdff_jax.results import Result
from siamdff_jax.tracking import lockstep
from siamdff_jax.tracking.chunks import Segment, empty_inputs, read_chunks
from siamdff_jax.tracking.collected import Collected
from siamdff_jax.tracking.reading import Notes
from siamdff_jax.tracking.streams import BrokenStreams, Stream, canvas, check_streams
from siamdff_jax.tracking.tracker import Tracker

AXIS = "lanes"
_WHOLE, _BY_LANE, _BY_FRAME = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)


def one_device_per_core() -> None:
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

  def __init__(self, tracker: Tracker, variables: Any, *, streams: int = 8, chunk: int = 8, reset: bool = False,
               form: lockstep.Form | None = None, devices: Sequence[jax.Device] | None = None, progress: bool = True):
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
    self._compiled: dict[FrameShape, jax.stages.Compiled] = {}
    self._collected: dict[int, Collected] = {}
    self.frames_tracked, self.seconds = 0, 0.0

  def load(self, variables: Any) -> None:
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
    started, shapes, errors = check_streams(streams, self._reset)
    notes, partial = [Notes() for _ in started], {}
    with contextlib.closing(self._tracked(started, shapes, notes)) as ended:
      for number, collected in ended:
        name, count = started[number].name, len(started[number].frames)
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

  def _tracked(self, streams: list[Stream], shapes: list[FrameShape],
               notes: list[Notes]) -> Generator[tuple[int, Collected], None, None]:
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
          self._collected.setdefault(segment.stream, Collected(streams[segment.stream])).add(segment, answer)
        frames = sum(segment.length for segment in segments)
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

  def _program(self, shape: FrameShape) -> jax.stages.Compiled:
    """The compiled `lockstep.advance` for canvases of this shape; compiled once."""
    if shape not in self._compiled:
      inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._by_frame),
                            empty_inputs(self._lanes, self._chunk, shape))
      lowered = _advance.lower(*self._fixed, self._variables, self._empty_lanes(), inputs)
      self._compiled[shape] = lowered.compile()
    return self._compiled[shape]

  def _empty_lanes(self) -> lockstep.Lanes:
    return jax.device_put(lockstep.empty(self._tracker, self._variables, self._lanes), self._by_lane)

  def _answers(self, program: jax.stages.Compiled, streams: list[Stream], shapes: list[FrameShape],
               notes: list[Notes]) -> Generator[tuple[lockstep.Answer, list[Segment]], None, None]:
    """Per chunk, as numpy. The next chunk is handed to the devices before the answers to the last are waited for."""
    lanes = self._empty_lanes()
    running: tuple[lockstep.Answer, list[Segment]] | None = None
    chunks = read_chunks(streams, shapes, lanes=self._lanes, chunk=self._chunk, canvas=canvas(shapes),
                         reset=self._reset, notes=notes)
    with contextlib.closing(chunks):
      for inputs, segments in chunks:
        # Where device arrays share memory with `inputs`, that is used again only after these answers are there.
        lanes, answer = program(self._variables, lanes, jax.device_put(inputs, self._by_frame))
        if running:
          yield jax.device_get(running[0]), running[1]
        running = (answer, segments)
      if running:
        yield jax.device_get(running[0]), running[1]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def _advance(tracker: Tracker, mesh: Mesh, reset: bool, form: lockstep.Form, variables: Any, lanes: lockstep.Lanes,
             inputs: lockstep.Inputs) -> tuple[lockstep.Lanes, lockstep.Answer]:
  """`lockstep.advance`; each device runs its own lanes, and nothing crosses between devices."""
  advance = functools.partial(lockstep.advance, tracker, reset=reset, form=form)
  return jax.shard_map(advance, mesh=mesh, in_specs=(_WHOLE, _BY_LANE, _BY_FRAME), out_specs=(_BY_LANE, _BY_FRAME),
                       check_vma=False)(variables, lanes, inputs)
