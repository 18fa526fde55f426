"""The bare training step: the same batch on the devices again and again, no input, no logging."""

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import footprint, timing
from benchmarks.cases import Case, random_batch
from siamdff_jax import distillation
from siamdff_jax.models.build import build
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training import throughput
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state, make_step


class BareStep:
  """A compiled step with everything it needs on the devices.

  Attributes:
    compile_seconds: tracing, lowering and compiling.
    analysis: XLA's memory analysis of one device's program; None where the layout's compiled step does not give it.
    memory: bytes per device by purpose, see `footprint.predicted`.
  """

  def __init__(self, case: Case, devices: Sequence[jax.Device] | None = None, initial: Any = None):
    """`initial`: from `initial_values` of the same networks; None makes them."""
    config = case.config
    self.layout = parallel.make_layout(config.layout, config.train.batch_size, devices, config.train.virtual_shards)
    model, distiller, teacher = networks(case, self.layout.norm_axis)
    state, variables = initial or initial_values(case)
    rule = optimizer(config.optimizer, config.train.steps)
    step = make_step(model, rule, config, axis_name=self.layout.axis_name, distiller=distiller, teacher=teacher)
    self.batch = self.layout.put_sharded(random_batch(config))
    self.state = self.layout.put_state(state)
    self._rest = (self.layout.put_replicated(()), self.layout.put_state(variables))
    self._compile(self.layout.compile(step))
    self.memory = footprint.predicted(self.state, self._rest[1], self.batch, self.analysis)

  def _compile(self, compiled: Any) -> None:
    start = time.perf_counter()
    self.analysis = None
    if hasattr(compiled, "lower"):
      compiled = compiled.lower(self.state, self.batch, *self._rest).compile()
      self.analysis = compiled.memory_analysis()
      self._compiled = compiled
    else:
      self._compiled = compiled
      jax.block_until_ready(self.run(1))
    self.compile_seconds = time.perf_counter() - start

  def take(self, batch: Any) -> dict[str, jax.Array]:
    """One step on `batch` (placed as `self.batch` is); its metrics, which may not be computed yet."""
    self.state, metrics = self._compiled(self.state, batch, *self._rest)
    return metrics

  def run(self, steps: int) -> dict[str, jax.Array]:
    """`steps` steps on the one batch; the last one's metrics."""
    for _ in range(steps):
      metrics = self.take(self.batch)
    return metrics

  def hlo(self) -> str:
    """The compiled program's text; of the layouts that give `analysis`."""
    return self._compiled.as_text()


def networks(case: Case, axis_name: str | None = None) -> tuple[SiamDFF, Any, Any]:
  """(model, distiller or None, teacher or None)."""
  model = build(case.config.model, axis_name)
  if case.teacher_config is None:
    return model, None, None
  return model, distillation.build(case.config.distiller), build(case.teacher_config.model)


def initial_values(case: Case) -> tuple[Any, Any]:
  """(TrainState, the teacher's variables or None) as numpy; they do not depend on the batch size or the layout."""
  model, distiller, teacher = networks(case)
  variables = None if teacher is None else _random_variables(teacher, case.config.seed + 1)
  rule = optimizer(case.config.optimizer, case.config.train.steps)
  return jax.device_get((initial_state(model, distiller, rule, case.config.seed, (teacher, variables)), variables))


def _random_variables(model: SiamDFF, seed: int) -> dict[str, Any]:

  def image(side: int) -> jax.Array:
    return jnp.zeros((1, side, side, 2 if model.prior_channel else 1))

  return jax.jit(model.init)(jax.random.key(seed), image(model.template_side), jnp.full((1, 2), 16.0),
                             image(model.search_side))


def steps_per_timing(bare: BareStep) -> int:
  """How many steps last about half a second; runs a few."""
  return timing.calls_per_timing(lambda: bare.run(1))


def rows(cases: Iterable[Case], batches: Iterable[int], repeats: int) -> Iterator[dict]:
  """A sweep over batch sizes per case; it ends at the first that does not fit the device's memory, and says so.

  Args:
    cases: their batch size is replaced.
    batches: global batch sizes, ascending.
    repeats: timings of each, of as many steps as last half a second.
  """
  for case in cases:
    flops = throughput.model_flops(case.config, case.teacher_config)
    initial = initial_values(case)
    for batch in batches:
      row = measured(case.with_batch(batch), initial, flops, repeats)
      yield row
      if row["note"] == OUT_OF_MEMORY:
        break


OUT_OF_MEMORY = "out of memory"


def measured(case: Case, initial: tuple[Any, Any], flops: float, repeats: int) -> dict:
  """One row.

  Args:
    case: with the batch size to measure.
    initial: from `initial_values`.
    flops: per pair, see `throughput.model_flops`.
    repeats: timings.
  """
  config = case.config
  row = {"case": case.name, "batch": config.train.batch_size, "dtype": config.model.dtype,
         "layout": config.layout.kind + (" fsdp" if config.layout.fsdp else "")}
  numbers = dict.fromkeys(("step (ms)", "quartiles (ms)", "pairs/s", "GFLOP/pair", "TFLOP/s", "MFU", "compile (s)",
                           "predicted (GiB)", "measured (GiB)"))
  numbers |= {"quartiles (ms)": "", "GFLOP/pair": flops / 1e9}
  try:
    numbers |= _timed(case, initial, flops, repeats)
    note = numbers.pop("note")
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    note = OUT_OF_MEMORY
  gc.collect()
  return row | numbers | {"note": note}


def _timed(case: Case, initial: tuple[Any, Any], flops: float, repeats: int) -> dict:
  bare = BareStep(case, initial=initial)
  probe = footprint.Probe(sum(bare.memory[name] for name in footprint.PLACED))
  count = steps_per_timing(bare)
  times = [t / count for t in timing.interleaved({"step": lambda: bare.run(count)}, repeats, warmup=1)["step"]]
  metrics = jax.device_get(bare.run(1))
  seconds = timing.median(times)
  rate = case.config.train.batch_size / seconds
  peak = throughput.peak_flops(jax.devices()[0].device_kind, case.config.model.dtype)
  return {
      "step (ms)": 1e3 * seconds, "quartiles (ms)": timing.spread(times), "pairs/s": rate,
      "TFLOP/s": rate * flops / 1e12, "MFU": rate * flops / (peak * jax.device_count()) if peak else None,
      "compile (s)": bare.compile_seconds, "predicted (GiB)": footprint.gib(bare.memory["total"]),
      "measured (GiB)": footprint.gib(probe.bytes()), "seconds": times, "steps_per_timing": [count],
      "memory": bare.memory, "note": "" if metrics["bad_steps"] == 0 else f"{metrics['bad_steps']} non-finite steps",
  }
