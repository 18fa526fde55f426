"""From a config to a network."""

import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from input_pipeline.errors import UserError
from siamdff_jax.models.backbone import Lite, ResNet, feature_side
from siamdff_jax.models.siamdff import SiamDFF


def build(config: ml_collections.ConfigDict, axis_name: str | None = None) -> SiamDFF:
  """The network of a `config.model`.

  Args:
    config: see `configs/base.py`, `model`.
    axis_name: the mapped axis that batch statistics are averaged over, or None.

  Raises:
    UserError: a crop side off the stride-8 grid, or an unknown backbone.
  """
  for side in (config.template_side, config.search_side):
    feature_side(side)
  common = dict(norm=config.norm, axis_name=axis_name, dtype=jnp.dtype(config.dtype))
  options = dict(config.backbone)
  kind = options.pop("kind")
  if kind == "resnet":
    options = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in options.items()}
    backbone: nn.Module = ResNet(**options, **common)
  elif kind == "lite":
    backbone = Lite(tuple(tuple(s) for s in options["stages"]), **common)
  else:
    raise UserError(f"model.backbone.kind is {kind!r}, expected 'resnet' or 'lite'")
  own = {k: v for k, v in config.items() if k not in ("backbone", "norm", "dtype")}
  return SiamDFF(backbone=backbone, **own, **common)
