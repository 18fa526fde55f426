"""Tracking: many sequences in lockstep against one frame after the other, with random weights on 640x512 frames.

All streams follow the same simulated sequence, from memory or from its JPEG files; weights are random, so it is the
speed that means something, not the boxes.
"""

import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.cases import Case
from input_pipeline import datasets
from input_pipeline.frames import ArrayFrames, FrameSource, ImageFiles
from input_pipeline.sequences import FrameShape
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.models.build import build
from siamdff_jax.models.summary import summarize
from siamdff_jax.tracking import configured
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.tracking.streams import Stream
from siamdff_jax.tracking.tracker import Tracker
from siamdff_jax.training import meter, throughput

SHAPE = FrameShape(rows=512, columns=640)
MEMORY, FILES = "memory", "JPEG files"
_LENGTHS = (1, 4, 16)  # Times `frames`, for the table of memory.


def rows(cases: Iterable[Case], streams: Iterable[int], frames: int, repeats: int) -> Iterator[dict]:
  """Frames/s of each network: one by one, then in lockstep for each number of streams, from memory and from files.

  Args:
    cases: only their networks count.
    streams: how many at a time; there are as many sequences.
    frames: of each sequence.
    repeats: timings of each.
  """
  with tempfile.TemporaryDirectory() as folder:
    sources, box = _sequence(folder, frames)
    for case in cases:
      yield from _measured(case, streams, sources, box, repeats)


def memory_rows(case: Case, streams: int, frames: int) -> Iterator[dict]:
  """Resident host memory after sequences of growing length, read from JPEG files: flat where nothing is held back."""
  with tempfile.TemporaryDirectory() as folder:
    sources, box = _sequence(folder, frames)
    runner = Runner(*_random_tracker(case), streams=streams)
    _run(runner, sources[FILES], box, streams)
    for factor in _LENGTHS:
      _run(runner, ImageFiles(sources[FILES].paths * factor), box, streams)
      yield {"case": _student(case), "streams": streams, "frames per sequence": factor * frames,
             "host memory (GiB)": meter.memory_gib().get("host_memory_gib")}


def _measured(case: Case, streams: Iterable[int], sources: Mapping[str, FrameSource], box: np.ndarray,
              repeats: int) -> Iterator[dict]:
  tracker, variables = _random_tracker(case)
  calls = {("one by one", MEMORY, 1): _one_by_one(tracker, variables, sources[MEMORY], box)}
  for count in streams:
    runner = Runner(tracker, variables, streams=count)
    for name, source in sources.items():
      calls["lockstep", name, count] = functools.partial(_run, runner, source, box, count)
  gflop, dtype = summarize(case.config.model)["search_gflop"], case.config.model.dtype
  peak = throughput.peak_flops(jax.devices()[0].device_kind, dtype)
  for (kind, name, count), times in timing.interleaved(calls, repeats, warmup=1).items():
    rate = count * len(sources[name]) / timing.median(times)
    devices = 1 if kind == "one by one" else min(count, jax.local_device_count())  # Those that have something to do.
    yield {"case": _student(case), "dtype": dtype, "tracked": kind, "frames from": name, "streams": count,
           "frames/s": rate, "GFLOP/frame": gflop, "GFLOP/s": rate * gflop,
           "share of the peak": 1e9 * rate * gflop / (peak * devices) if peak else None, "seconds": times}


def _one_by_one(tracker: Tracker, variables: Mapping[str, Any], frames: FrameSource, box: np.ndarray
                ) -> Callable[[], None]:
  """A call that tracks as a live camera is tracked: a frame goes in, its box is waited for, then the next."""
  init, step = jax.jit(tracker.init), jax.jit(tracker.step)

  def run() -> None:
    first, *rest = frames
    state = init(variables, first, box)
    for frame in rest:
      state, output = step(variables, state, frame)
      jax.device_get(output)

  return run


def _sequence(folder: str, frames: int) -> tuple[dict[str, FrameSource], np.ndarray]:
  """The same frames from both places, and the target's box in the first of them."""
  write_dataset(folder, 1, frames, seed=0, width=SHAPE.columns, height=SHAPE.rows)
  (sequence,) = datasets.load("antiuav410", folder)
  return {MEMORY: ArrayFrames(np.stack(list(sequence.frames))), FILES: sequence.frames}, sequence.boxes[0]


def _student(case: Case) -> str:
  return case.name.partition(" <- ")[0]


def _random_tracker(case: Case) -> tuple[Tracker, dict[str, Any]]:
  model = build(case.config.model)

  def image(side: int) -> jax.Array:
    return jnp.zeros((1, side, side, 1))

  variables = jax.jit(model.init)(jax.random.key(case.config.seed), image(model.template_side), jnp.full((1, 2), 16.0),
                                  image(model.search_side))
  return Tracker(model, configured.of_config(case.config.tracker)[0]), variables


def _run(runner: Runner, source: FrameSource, box: np.ndarray, count: int) -> None:
  for _ in runner.run([Stream(f"{i}", source, box, shape=SHAPE) for i in range(count)]):
    pass
