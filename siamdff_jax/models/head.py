"""Anchor-free, centre-based head (FCOS, SiamCAR): class, quality and ltrb per cell, one presence logit per image."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.models.backbone import STRIDE
from siamdff_jax.models.layers import ConvNorm, peak


class Head(nn.Module):
  """Two towers of 3x3 convolution + GroupNorm.

  Attributes:
    tower_depth: convolutions per tower.
    template_side: a target is about half a template crop wide, which sets the initial box size.
  """

  tower_depth: int = 4
  template_side: int = 127
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, response: jax.Array) -> dict[str, jax.Array]:
    """Predicts from the correlation response.

    Args:
      response: [B, n, n, D].

    Returns:
      float32: "class_logit" [B, n, n], "quality_logit" [B, n, n], "ltrb" [B, n, n, 4] distances in search-crop
      pixels from the cell's centre to the box's sides (> 0), "presence_logit" [B].
    """
    towers = {}
    for name in ("class_tower", "box_tower"):
      x = response
      for i in range(self.tower_depth):
        x = ConvNorm(response.shape[-1], 3, norm="group", dtype=self.dtype, name=f"{name}{i}")(x, False)
      towers[name] = x
    small = nn.initializers.normal(0.01)

    def conv(features: int, bias: float, name: str) -> nn.Module:
      return nn.Conv(features, (3, 3), kernel_init=small, bias_init=nn.initializers.constant(bias), dtype=self.dtype,
                     name=name)

    prior = -math.log((1 - 0.01) / 0.01)  # Every cell starts with a class probability of 1 %.
    class_logit = conv(1, prior, "class")(towers["class_tower"])[..., 0].astype(jnp.float32)
    quality_logit = conv(1, 0.0, "quality")(towers["box_tower"])[..., 0].astype(jnp.float32)
    initial_size = math.log(self.template_side / 4 / STRIDE)
    ltrb = conv(4, initial_size, "ltrb")(towers["box_tower"]).astype(jnp.float32)
    # exp() of an outlier must not overflow into the loss: 6 is 3227 px, beyond any crop.
    ltrb = jnp.exp(jnp.minimum(ltrb, 6.0)) * STRIDE
    x = towers["class_tower"]
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    pooled = jnp.concatenate([x.mean(1), peak(x, 1)], -1)  # [B, 2D]
    hidden = nn.relu(nn.Dense(max(x.shape[-1] // 2, 8), dtype=self.dtype, name="presence_hidden")(pooled))
    presence = nn.Dense(1, dtype=self.dtype, name="presence")(hidden)[:, 0].astype(jnp.float32)
    return {"class_logit": class_logit, "quality_logit": quality_logit, "ltrb": ltrb, "presence_logit": presence}
