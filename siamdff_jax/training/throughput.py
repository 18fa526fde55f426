"""What a training step needs and what a device can do, in floating-point operations: what MFU is made of."""

import re
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

  def image(side: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)

  def forward(variables: Any, template: jax.Array, wh: jax.Array, search: jax.Array) -> dict[str, jax.Array]:
    out: Any = model.apply(variables, template, wh, search)
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
