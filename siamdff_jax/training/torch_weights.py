"""ImageNet weights of a PyTorch ResNet-18, -34 or -50 as the start of our backbone.

The names are torchvision's (timm's ResNets use the same): conv1, bn1, layer1.0.conv1, ..., layer2.0.downsample.0.
PyTorch itself is not needed: the state dict comes as a .safetensors file, which
`safetensors.torch.save_file(model.state_dict(), "resnet50.safetensors")` writes, and which timm's models are published
as.

What corresponds: kernels OIHW become HWIO; batch normalisation has the same epsilon; the stride of a bottleneck is on
its 3x3 convolution in both. What differs is ours by design: no padding in strided layers, and dilation instead of
stride in stages 3 and 4. The three input channels of the stem are summed, without rescaling: on a grey image the
network computes what the original computes on that image in all three channels after normalisation. The images are
therefore to be normalised to mean 0 and deviation 1 (`model.mean`, `model.std`), as ImageNet's are.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints.safetensors import read_arrays
from siamdff_jax.training.state import TrainState

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_IGNORED = re.compile(r"(^|\.)num_batches_tracked$|^fc\.(weight|bias)$")


def backbone_variables(state_dict: Mapping[str, np.ndarray], expected: Mapping[str, Any], where: str = "state dict"
                       ) -> dict[str, Any]:
  """The backbone's variables from a PyTorch state dict.

  Args:
    state_dict: numpy arrays by torchvision's names; the classifier (fc) is ignored.
    expected: {"params", "batch_stats"} of the backbone alone, arrays or shapes.
    where: what errors name.

  Returns:
    {"params", "batch_stats"} like `expected`, float32 numpy.

  Raises:
    UserError: the backbone is no ResNet with batch normalisation, or names or shapes differ; it lists them.
  """
  flat = traverse_util.flatten_dict(
      {name: dict(expected.get(name, {})) for name in ("params", "batch_stats")}, sep="/")
  first = "params/stage1_block0/ConvNorm_0/Conv_0/kernel"
  if first not in flat or "batch_stats/stem/Norm_0/BatchNorm_0/mean" not in flat:
    raise UserError(f"{where}: only a ResNet with batch normalisation can start from it, set model.backbone.kind to "
                    "'resnet' and model.norm to 'frozen_batch' or 'batch'")
  bottleneck = flat[first].shape[0] == 1
  theirs = {name: _torch_name(name, bottleneck) for name in flat}
  missing = sorted(set(theirs.values()) - set(state_dict))
  unexpected = sorted(name for name in set(state_dict) - set(theirs.values()) if not _IGNORED.search(name))
  if missing or unexpected:
    raise UserError(f"{where}: does not fit this backbone; missing: {_listed(missing)}; unexpected: "
                    f"{_listed(unexpected)}")
  converted = {name: _convert(np.asarray(state_dict[key], np.float32), flat[name].shape, is_stem=key == "conv1.weight")
               for name, key in theirs.items()}
  differ = [f"{theirs[name]} gives {value.shape}, expected {tuple(flat[name].shape)}"
            for name, value in sorted(converted.items()) if value.shape != tuple(flat[name].shape)]
  if differ:
    raise UserError(f"{where}: does not fit this backbone; {_listed(differ)}")
  nested = traverse_util.unflatten_dict(converted, sep="/")
  return {"params": nested["params"], "batch_stats": nested["batch_stats"]}


def start_from(state: TrainState, path: str) -> TrainState:
  """A fresh training state with the backbone (and its moving average) from a state dict in a .safetensors file.

  Raises:
    UserError: no readable file, or it does not fit; see `backbone_variables`.
  """
  expected = {"params": state.params["student"]["backbone"], "batch_stats": state.batch_stats.get("backbone", {})}
  found = backbone_variables(read_arrays(path)[0], expected, path)

  def fresh(name: str) -> dict[str, Any]:
    return {"backbone": jax.tree.map(jnp.array, found[name])}  # A step donates: no buffer may occur twice.

  return state.replace(
      params=state.params | {"student": state.params["student"] | fresh("params")},
      ema=state.ema | fresh("params"), batch_stats=state.batch_stats | fresh("batch_stats"))


def _torch_name(name: str, bottleneck: bool) -> str:
  """E.g. params/stage2_block0/ConvNorm_1/Conv_0/kernel -> layer2.0.conv2.weight."""
  parts = name.split("/")[1:]
  if parts == ["stem", "kernel"]:
    return "conv1.weight"
  if parts[0] == "stem":
    return f"bn1.{_NORM[parts[-1]]}"
  named = re.fullmatch(r"stage(\d+)_block(\d+)", parts[0])
  assert named  # Of `models.backbone.ResNet`.
  stage, block = named.groups()
  index = int(parts[1].removeprefix("ConvNorm_"))
  is_conv = parts[2] == "Conv_0"
  if index == (3 if bottleneck else 2):  # After the block's own convolutions.
    layer = f"downsample.{0 if is_conv else 1}"
  else:
    layer = f"{'conv' if is_conv else 'bn'}{index + 1}"
  return f"layer{stage}.{block}.{layer}.{'weight' if is_conv else _NORM[parts[-1]]}"


def _convert(value: np.ndarray, shape: tuple[int, ...], is_stem: bool) -> np.ndarray:
  if value.ndim != 4:
    return value
  value = value.transpose(2, 3, 1, 0)  # OIHW -> HWIO.
  if is_stem and value.shape[2] == 3:
    value = value.sum(2, keepdims=True)
    if shape[2] == 2:  # The privileged channel starts without influence.
      value = np.concatenate([value, np.zeros_like(value)], 2)
  return value


def _listed(names: Sequence[str]) -> str:
  more = f" and {len(names) - 6} more" if len(names) > 6 else ""
  return (", ".join(names[:6]) or "none") + more
