"""How fast a training runs: pairs/s, share of the time spent waiting for input, MFU and memory, for the log."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import ml_collections

from siamdff_jax.checkpoints import trained
from siamdff_jax.training import throughput


def memory_gib() -> dict[str, float]:
  """{"host_memory_gib": resident memory of this process, "device_memory_gib": in use on the fullest local device}.

  A host call that waits for nothing. A key is missing where the platform does not tell.
  """
  found = {}
  in_use = [stats["bytes_in_use"] for device in jax.local_devices()
            if (stats := device.memory_stats()) and "bytes_in_use" in stats]
  if in_use:
    found["device_memory_gib"] = max(in_use) / 2**30
  with contextlib.suppress(FileNotFoundError), open("/proc/self/status") as file:  # Linux only.
    for line in file:
      if line.startswith("VmRSS:"):
        found["host_memory_gib"] = int(line.split()[1]) / 2**20
  return found


class _Stream(Protocol):
  """What gives one item after the other: an iterator, or a feed."""

  def __next__(self) -> Any:
    """The next item."""


class Meter:
  """Counts pairs and the loop's waiting between two log lines.

      meter = Meter(batch_size, flops_per_pair, peak)
      for ...:
        batch = meter.take(stream)
        ...
        meter.advance()
        if step % log_every == 0:
          scalars |= meter.scalars()

  It never waits for a device; the numbers are true as far as the loop itself does not run ahead of its devices.

  Args:
    batch_size: pairs per step, over all devices and hosts.
    flops_per_pair: from `throughput.model_flops`; None leaves "mfu" out.
    peak: FLOP/s of all devices together; None leaves "mfu" out.
    clock: seconds, for tests.
    memory: -> scalars that are logged too.
  """

  def __init__(self, batch_size: int, flops_per_pair: float | None = None, peak: float | None = None, *,
               clock: Callable[[], float] = time.perf_counter, memory: Callable[[], dict[str, float]] = memory_gib):
    self._batch_size, self._flops, self._peak = batch_size, flops_per_pair, peak
    self._clock, self._memory = clock, memory
    self._restart()

  def _restart(self) -> None:
    self._since, self._waited, self._steps = self._clock(), 0.0, 0

  def take(self, stream: _Stream) -> Any:
    """`next(stream)`; the time it takes is input wait."""
    start = self._clock()
    item = next(stream)
    self._waited += self._clock() - start
    return item

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """What happens inside (validation) belongs to no interval."""
    start = self._clock()
    try:
      yield
    finally:
      self._since += self._clock() - start

  def advance(self) -> None:
    """One step was taken."""
    self._steps += 1

  def scalars(self) -> dict[str, float]:
    """Of the interval since the last call, and starts the next one.

    Returns:
      "pairs_per_second"; "input_wait", the share 0..1 of the interval that the loop was blocked in `take`; "mfu", the
      share 0..1 of the devices' peak that the model's operations took, only where both are known; and `memory`'s.
    """
    seconds = max(self._clock() - self._since, 1e-9)
    rate = self._steps * self._batch_size / seconds
    found = {"pairs_per_second": rate, "input_wait": min(self._waited / seconds, 1.0)}
    if self._flops and self._peak:
      found["mfu"] = rate * self._flops / self._peak
    self._restart()
    return found | self._memory()


def make(config: ml_collections.ConfigDict) -> Meter:
  """The meter of a training: with MFU where the devices' peak is known.

  Args:
    config: the whole config.
  """
  peak = throughput.peak_flops(jax.devices()[0].device_kind, config.model.dtype)
  if peak is None:
    return Meter(config.train.batch_size)
  teacher = trained.load_config(config.teacher.checkpoint) if config.distiller.kind != "none" else None
  flops = None
  with contextlib.suppress(RuntimeError):  # Without a CPU backend beside the accelerator's nothing counts them.
    flops = throughput.model_flops(config, teacher)
  return Meter(config.train.batch_size, flops, peak * jax.device_count())
