"""The JAX network's weights in `pytorch_tracker`'s network: the same arrays by their other names."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax import traverse_util

from benchmarks.pytorch_tracker import SiamDFF

_RENAMES = (
    (r"^(params|batch_stats)/", ""), (r"stage(\d)_block(\d+)/", r"stage\1/\2/"), (r"^sten_", "sten/"),
    (r"stem/kernel$", "stem/conv/kernel"), (r"(Batch|Group)Norm_0/", ""), (r"(Layer)?Norm_0/", "norm/"),
    (r"/Conv_0/", "/conv/"), (r"_tower(\d+)/", r"_tower/\1/"), (r"head/(class|quality)/", r"head/\1_logit/"),
    (r"/kernel$", "/weight"), (r"norm/scale$", "norm/weight"), (r"norm/(mean|var)$", r"norm/running_\1"),
)


def torch_name(name: str, bottleneck: bool) -> str:
  """Our name of an array, "params/backbone/stage1_block0/ConvNorm_0/Conv_0/kernel", as the module's state names it."""
  shortcut = 3 if bottleneck else 2
  name = re.sub(r"ConvNorm_(\d)/", lambda m: "shortcut/" if int(m[1]) == shortcut else f"convs/{m[1]}/", name)
  for pattern, replacement in _RENAMES:
    name = re.sub(pattern, replacement, name)
  return name.replace("/", ".")


def _kernel(value: np.ndarray) -> np.ndarray:
  """Dense [in, out], depthwise [k, k, C] or convolution [k, k, in, out] kernels in PyTorch's order of axes."""
  if value.ndim == 3:
    value = value[:, :, None]
  return value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)


def load_variables(network: SiamDFF, variables: Mapping[str, Any], bottleneck: bool) -> None:
  """Copies the JAX network's {"params", "batch_stats"} into `network`; HWIO kernels become OIHW.

  Raises:
    ValueError: names differ.
  """
  state = {}
  for name, value in traverse_util.flatten_dict(dict(variables), sep="/").items():
    value = np.asarray(value, np.float32)
    if name.endswith("/kernel"):
      value = _kernel(value)
    state[torch_name(name, bottleneck)] = torch.tensor(np.ascontiguousarray(value))
  missing, unexpected = network.load_state_dict(state, strict=False)
  missing = [name for name in missing if not name.endswith("num_batches_tracked")]
  if missing or unexpected:
    raise ValueError(f"the variables do not fit the PyTorch network; missing: {missing}; unexpected: {unexpected}")
