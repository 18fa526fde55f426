"""Memory of a training step per device: predicted by purpose, and what was really taken."""

import ctypes
import gc
from collections.abc import Iterable
from typing import Any

import jax
import ml_collections
import numpy as np

from input_pipeline.records import CONTEXT
from input_pipeline.sampling import needed_context
from input_pipeline.sequences import FrameShape
from siamdff_jax.feeding.resident import UNIT
from siamdff_jax.training.state import TrainState

# Anti-UAV410 (see README.md): frames of all three splits, their shape, and the targets' sqrt(w h) in pixels at seven
# quantiles of the training split, which stand for the distribution.
FRAMES, FRAME_SHAPE = 438_397, FrameShape(rows=512, columns=640)
TARGET_SIZES = (6.5, 8.0, 16.6, 30.6, 41.3, 56.8, 78.8)
TARGET_QUANTILES = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)


def gib(size: float | None) -> float | None:
  return None if size is None else size / 2**30


def bytes_per_device(tree: Any) -> int:
  """Bytes of the arrays' parts on one device (all devices hold equal parts)."""
  return sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree))


PURPOSES = ("parameters", "gradients", "optimizer", "ema", "statistics", "teacher", "inputs", "activations", "total")
PLACED = ("parameters", "optimizer", "ema", "statistics", "teacher", "inputs")  # The step's arguments.


def predicted(state: TrainState, teacher_variables: Any, batch: Any, analysis: Any) -> dict[str, int | None]:
  """Bytes on one device during a step.

  Args:
    state: the placed TrainState.
    teacher_variables: the placed teacher, or None.
    batch: the placed batch.
    analysis: `compiled.memory_analysis()`, or None: then activations and total are None.

  Returns:
    "parameters", "gradients", "optimizer", "ema", "statistics" (batch norm and counters), "teacher", "inputs",
    "activations" (XLA's temporary memory without the gradients, which are part of it) and "total". The step's results
    take the place of the donated state.
  """
  found = {
      "parameters": bytes_per_device(state.params), "gradients": bytes_per_device(state.params),
      "optimizer": bytes_per_device(state.opt_state), "ema": bytes_per_device(state.ema),
      "statistics": bytes_per_device((state.batch_stats, state.step, state.bad_steps)),
      "teacher": bytes_per_device(teacher_variables), "inputs": bytes_per_device(batch),
  }
  if analysis is None:
    return found | {"activations": None, "total": None}
  not_donated = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  found["activations"] = max(analysis.temp_size_in_bytes - found["gradients"], 0)
  return found | {"total": sum(found.values()) + max(not_donated, 0)}


def resident_bytes(config: ml_collections.ConfigDict, frames: int = FRAMES, shape: FrameShape = FRAME_SHAPE,
                   sizes: Iterable[float] = TARGET_SIZES, quantiles: Iterable[float] = TARGET_QUANTILES) -> float:
  """Estimated bytes of a data set in device memory, as `feeding.resident` lays it out.

  Each frame's stored part reaches as far as the config's windows need (at least `records.CONTEXT`) around a square
  target in the frame's middle, cut at the frame; its rows are whole units. The mean is over the distribution of sizes,
  linear between the quantiles.
  """
  needed = needed_context(config.data.pairs, config.model.search_side / config.model.template_side)
  context = max(needed, CONTEXT)
  targets = np.interp(np.linspace(0, 1, 1001), list(quantiles), list(sizes))
  sides = 2 * context * (2 * targets)  # A square target's template window has twice its side.
  width, height = (np.minimum(sides, side) for side in shape.wh)
  return frames * float(np.mean(np.ceil(width / UNIT) * UNIT * height))


class Probe:
  """The memory that a step takes at its peak, from the probe's creation on.

  On accelerators: the allocator's peak of the first device, which is known only where it rose above all earlier ones of
  the process (it cannot be set back), so sweeps go upwards. On CPUs (Linux): growth of the process's resident memory
  beyond what was there before, plus the arrays that were placed already; other threads of the process count too.
  """

  def __init__(self, placed: int):
    """`placed`: bytes of the step's arguments, which are on the device already."""
    gc.collect()
    self._device = jax.local_devices()[0]
    self._on_device = bool(self._device.memory_stats())
    if self._on_device:
      self._before = self._device.memory_stats()["peak_bytes_in_use"]
      return
    _trim()
    resident = _resident("VmRSS")
    self._before = None if resident is None else resident - placed
    if resident is not None:
      with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Sets VmHWM back.

  def bytes(self) -> int | None:
    """None where it cannot be known."""
    if self._on_device:
      peak = self._device.memory_stats()["peak_bytes_in_use"]
      return peak if peak > self._before else None
    return None if self._before is None else _resident("VmHWM") - self._before


def _resident(field: str) -> int | None:
  try:
    with open("/proc/self/status") as file:
      return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{field}:"))
  except OSError:  # Not Linux.
    return None


def _trim() -> None:
  """Gives what the compiler freed back to the system, so that it is not taken for the step's."""
  gc.collect()
  libc = ctypes.CDLL(None)
  if hasattr(libc, "malloc_trim"):
    libc.malloc_trim(0)
