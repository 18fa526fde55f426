"""How fast a training runs: pairs/s, share of the time spent waiting for input, MFU and memory, for the log."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from siamdff_jax.models import summary
from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables

# Dense peaks in FLOP/s (multiply-add as 2) of one JAX device: (bfloat16, float32), the first entry whose name the
# device kind contains. NVIDIA's data sheets print tensor-core rates "with sparsity"; these are the halves. float32 is
# TF32 on tensor cores, which XLA uses by default; on TPUs float32 products are by default one bfloat16 pass, hence the
# same peak. None: the unit does not exist there (the V100 and the T4 have no bfloat16).
# Sources: NVIDIA data sheets "H100 Tensor Core GPU", "H200 Tensor Core GPU", "GH200 Grace Hopper Superchip",
# "Blackwell HGX B200", "A100 Tensor Core GPU", "L40S", "L4 Tensor Core GPU", "V100", "T4"; Google Cloud documentation,
# "TPU v3", "v4", "v5e", "v5p", "v6e" (peak compute per chip; a v3 chip is two devices).
PEAKS = (
    ("B200", (2250e12, 1100e12)),
    ("GH200", (989e12, 494e12)),
    ("H200 NVL", (835e12, 417e12)),
    ("H200", (989e12, 494e12)),
    ("H100 PCIe", (756e12, 378e12)),
    ("H100 NVL", (835e12, 417e12)),
    ("H100", (989e12, 494e12)),
    ("A100", (312e12, 156e12)),
    ("L40S", (362e12, 183e12)),
    ("L4", (121e12, 60e12)),
    ("V100-PCIE", (None, 14e12)),
    ("V100", (None, 15.7e12)),
    ("T4", (None, 8.1e12)),
    ("TPU v3", (61.5e12, 61.5e12)),
    ("TPU v4", (275e12, 275e12)),
    ("TPU v5 lite", (197e12, 197e12)),  # v5e
    ("TPU v5e", (197e12, 197e12)),
    ("TPU v5", (459e12, 459e12)),  # v5p
    ("TPU v6", (918e12, 918e12)),  # v6e, "TPU v6 lite"
)


def peak_flops(device_kind: str, dtype: Any) -> float | None:
  """The dense peak of one device in FLOP/s.

  Args:
    device_kind: `jax.Device.device_kind`.
    dtype: of the computation, bfloat16 or float32.

  Returns:
    None where it is not known: a CPU, a device or a dtype that `PEAKS` does not have.
  """
  column = {"bfloat16": 0, "float32": 1}.get(jnp.dtype(dtype).name)
  for name, peaks in PEAKS:
    # Whole names only: "L4" is not in "L40S", "H200" not in "GH200"; "TPU v5" is in "TPU v5p".
    if column is not None and re.search(rf"(?<![A-Za-z0-9]){name}(?![A-Z0-9])", device_kind):
      return peaks[column]
  return None


def forward_flops(config: ml_collections.ConfigDict) -> float:
  """Floating-point operations of one pair's template and search pass, a multiply-add as 2.

  At batch 1; errors as `models.summary.flops`, which counts.
  The two forms of a depthwise operation, and so CPUs and accelerators, count alike but for taps on the padding, which
  "shift" computes and XLA leaves out of "grouped": 0.00001 of siamdff_r50, 0.0014 of siamdff_lite.

  Args:
    config: `config.model`.
  """
  model = build(config)
  channels = 2 if model.prior_channel else 1
  image = lambda side: jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)

  def forward(variables, template, wh, search):
    out = model.apply(variables, template, wh, search)
    return {key: out[key] for key in ("class_logit", "quality_logit", "ltrb", "presence_logit")}

  return summary.flops(forward, abstract_variables(model), image(model.template_side),
                       jax.ShapeDtypeStruct((1, 2), jnp.float32), image(model.search_side))


def model_flops(config: ml_collections.ConfigDict, teacher_config: ml_collections.ConfigDict | None = None) -> float:
  """FLOP per pair of a training step by the usual convention (PaLM, appendix B): what the network needs, not what is
  executed. 3 x forward of the student (forward, gradients by activations and by weights) + 1 x forward of the teacher;
  recomputation (remat), losses, distiller and optimizer do not count.

  Args:
    config: the whole config of what is trained.
    teacher_config: the whole config of the teacher, or None without distillation.
  """
  return 3 * forward_flops(config.model) + (forward_flops(teacher_config.model) if teacher_config else 0.0)


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
  """

  def __init__(self, batch_size: int, flops_per_pair: float | None = None, peak: float | None = None, *,
               clock: Callable[[], float] = time.perf_counter, memory: Callable[[], dict] = memory_gib):
    """
    Args:
      batch_size: pairs per step, over all devices and hosts.
      flops_per_pair: from `model_flops`; None leaves "mfu" out.
      peak: FLOP/s of all devices together; None leaves "mfu" out.
      clock: seconds, for tests.
      memory: -> scalars that are logged too.
    """
    self._batch_size, self._flops, self._peak = batch_size, flops_per_pair, peak
    self._clock, self._memory = clock, memory
    self._restart()

  def _restart(self):
    self._since, self._waited, self._steps = self._clock(), 0.0, 0

  def take(self, stream: Iterator) -> Any:
    """`next(stream)`; the time it takes is input wait."""
    start = self._clock()
    item = next(stream)
    self._waited += self._clock() - start
    return item

  @contextlib.contextmanager
  def paused(self):
    """What happens inside (validation) belongs to no interval."""
    start = self._clock()
    try:
      yield
    finally:
      self._since += self._clock() - start

  def advance(self):
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
