"""The real training loop on device-resident data against the bare step on a fixed batch.

The loop draws, gathers, crops and augments its pairs inside the step, averages metrics and writes logs; the bare step
does nothing but the step, before and after the loop's run. Saving is measured elsewhere (`saving`).
"""

import os
import tempfile
from collections.abc import Iterable, Iterator

import jax
import ml_collections

from benchmarks import timing
from benchmarks.cases import Case
from benchmarks.step import BareStep, initial_values, steps_per_timing
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.models.build import build
from siamdff_jax.training.logging import read_metrics
from siamdff_jax.training.loop import train
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state

_SEQUENCES, _FRAMES = 24, 40  # Of 640x512; what they show does not matter.


def rows(cases: Iterable[Case], batch: int, repeats: int) -> Iterator[dict]:
  """Milliseconds per step of both and their ratio; a log interval of the loop per timing."""
  with tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "data")
    write_dataset(data, _SEQUENCES, _FRAMES, seed=0, width=640, height=512)
    for number, case in enumerate(cases):
      yield measured(case.with_batch(batch), data, os.path.join(folder, str(number)), repeats)


def measured(case: Case, data: str, folder: str, repeats: int) -> dict:
  """One row."""
  bare = BareStep(case, initial=initial_values(case))
  steps = max(steps_per_timing(bare), 2)
  before = timing.interleaved({"bare": lambda: bare.run(steps)}, repeats)["bare"]
  loop = _loop(case, data, folder, steps, repeats)
  after = timing.interleaved({"bare": lambda: bare.run(steps)}, repeats)["bare"]
  seconds = {"bare": [t / steps for t in before + after], "loop": loop}
  bare_ms, loop_ms = (1e3 * timing.median(seconds[name]) for name in ("bare", "loop"))
  return {"case": case.name, "batch": case.config.train.batch_size, "steps": steps, "bare step (ms)": bare_ms,
          "loop (ms)": loop_ms, "loop/bare": loop_ms / bare_ms, "seconds": seconds}


def _loop(case: Case, data: str, folder: str, steps: int, repeats: int) -> list[float]:
  """Seconds per step of the loop's log intervals, those after the first two: compilation and warming up."""
  config = case.config.copy_and_resolve_references()
  config.data.train = dict(simulated=dict(format="antiuav410", root=data, weight=1.0))
  config.data.feed, config.data.records = "device", os.path.join(os.path.dirname(folder), "records")
  count = (repeats + 2) * steps
  config.train.update(steps=count, log_every=steps, checkpoint_every=10 * count)
  if case.teacher_config is not None:
    config.teacher.checkpoint = _write_teacher(case.teacher_config, os.path.join(folder, "teacher"))
  train(config, os.path.join(folder, "run"))
  rates = [line["pairs_per_second"] for line in read_metrics(os.path.join(folder, "run"))]
  return [config.train.batch_size / rate for rate in rates[2:]]


def _write_teacher(config: ml_collections.ConfigDict, workdir: str) -> str:
  """A checkpoint of random weights."""
  state = initial_state(build(config.model), None, optimizer(config.optimizer, config.train.steps), config.seed + 1)
  with Checkpoints(workdir) as saved:
    saved.save(jax.device_put(state), config)
  return workdir
