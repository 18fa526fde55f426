"""The training loop against the bare step, in turns, on a batch that is on the devices already."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from siamdff_jax.benchmarks import timing
from siamdff_jax.benchmarks.cases import Case
from siamdff_jax.benchmarks.step import BareStep, steps_per_timing
from siamdff_jax.training import throughput
from siamdff_jax.training.logging import RunLog


def rows(cases: Iterable[Case], batch: int, repeats: int) -> Iterator[dict]:
  """Milliseconds per step of both and their ratio; a log interval of the loop per timing."""
  for case in cases:
    bare = BareStep(case.with_batch(batch))
    steps = max(steps_per_timing(bare), 2)
    with tempfile.TemporaryDirectory() as workdir:
      log = RunLog(workdir, 0, (repeats + 1) * steps, batch)
      meter = throughput.Meter(
          batch, throughput.model_flops(case.config, case.teacher_config), _peak(case.config.model.dtype))
      calls = {"bare": lambda: bare.run(steps), "loop": lambda: interval(bare, steps, meter, log)}
      times = timing.interleaved(calls, repeats, warmup=1)
      log.close()
    seconds = {name: timing.median(found) / steps for name, found in times.items()}
    yield {"case": case.name, "batch": batch, "steps": steps, "bare step (ms)": 1e3 * seconds["bare"],
           "loop (ms)": 1e3 * seconds["loop"], "loop/bare": seconds["loop"] / seconds["bare"], "seconds": times}


def interval(bare: BareStep, steps: int, meter: throughput.Meter, log: RunLog):
  """What the training loop does between two log lines: one step in flight, metrics averaged, scalars written."""
  stream, pending = itertools.repeat(bare.batch), []
  for _ in range(steps):
    pending.append(bare.take(meter.take(stream)))
    if len(pending) > 1:
      jax.block_until_ready(pending[-2])
    log.advance()
    meter.advance()
  fetched = jax.device_get(pending)
  scalars = {name: float(np.mean([m[name] for m in fetched])) for name in fetched[0]}
  log.write(int(bare.state.step), scalars | meter.scalars())


def _peak(dtype: str) -> float | None:
  peak = throughput.peak_flops(jax.devices()[0].device_kind, dtype)
  return peak * jax.device_count() if peak else None
