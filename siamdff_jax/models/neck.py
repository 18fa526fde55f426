"""Neck: every backbone level to the same width; the template is cut to its centre."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.models.layers import ConvNorm


def centre_cut(x: jax.Array, side: int) -> jax.Array:
  """The central side x side cells of [B, H, W, C] (all of it when it is no larger)."""
  margin = (x.shape[1] - side) // 2
  return x if margin <= 0 else x[:, margin:margin + side, margin:margin + side]


class Neck(nn.Module):
  """1x1 convolution and normalisation per level, to D channels."""

  features: int
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, levels: dict[int, jax.Array], train: bool) -> dict[int, jax.Array]:
    """{level: [B, H, W, C_level]} -> {level: [B, H, W, D]}."""
    return {
        level: ConvNorm(self.features, 1, relu=False, norm=self.norm, axis_name=self.axis_name, dtype=self.dtype,
                        name=f"level{level}")(x, train)
        for level, x in sorted(levels.items())
    }
