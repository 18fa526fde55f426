"""DSFAM, dynamic spatial feature aggregation module: local details and global features of several levels.

The abstract of arXiv 2512.04581 fixes: multi-scale target features, local details integrated with global features,
spatial attention guidance within the search frame. Everything below is our choice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.models.dcfam import pool_inside
from siamdff_jax.models.layers import Dense, DepthwiseConv, peak


class ContextBlock(nn.Module):
  """Global context (GCNet): one softmax-pooled context vector through a bottleneck. Returns the vector's update.

  Attributes:
    dtype: of the computation.
    reduction: how many times narrower than the input the bottleneck is (at least 8 channels stay).
  """

  dtype: Any = jnp.float32
  reduction: int = 4

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, D] -> [B, 1, 1, D]; zero at initialisation."""
    b, _, _, d = x.shape
    attention = jax.nn.softmax(Dense(1, dtype=self.dtype, name="attention")(x).reshape(b, -1), axis=-1)
    context = jnp.einsum("bn,bnd->bd", attention, x.reshape(b, -1, d))
    hidden = Dense(max(d // self.reduction, 8), dtype=self.dtype, name="hidden")(context)
    hidden = nn.relu(nn.LayerNorm(dtype=self.dtype)(hidden))
    return Dense(d, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(hidden)[:, None, None, :]


class DSFAM(nn.Module):
  """Aggregates the search levels; starts as their mean (which is also what it is replaced by when switched off)."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, levels: dict[int, jax.Array], template: jax.Array, box_mask: jax.Array) -> dict[str, jax.Array]:
    """Mixes the levels' branches per pixel.

    Args:
      levels: {2, 3, 4} -> [B, H, W, D], the enhanced search features.
      template: [B, h, w, D]; its descriptor inside the box guides the mix.
      box_mask: [B, h, w, 1] in 0..1, see `dcfam.box_mask`.

    Returns:
      "search" [B, H, W, D], and by name "guidance" [B, H, W, 3] and "branch_weights" [B, H, W, 5].
    """
    d = levels[2].shape[-1]

    def conv(kernel: int, dilation: int, name: str) -> nn.Module:
      return DepthwiseConv(kernel, 1, dilation, dtype=self.dtype, name=name)

    deepest = levels[4]
    branches = [
        conv(3, 1, "local3")(levels[2]),
        conv(5, 1, "local5")(levels[2]),
        conv(3, 2, "dilated2")(levels[3]),
        conv(3, 3, "dilated3")(levels[4]),
        deepest + ContextBlock(self.dtype, name="context")(deepest),
    ]
    mean = (levels[2] + levels[3] + levels[4]) / 3
    # The target's descriptor over the search map, as a cosine: where in the frame does it look like the target?
    descriptor = pool_inside(template, box_mask)[:, None, None, :]
    similarity = (descriptor * mean).sum(-1) / (_norm(descriptor) * _norm(mean)).astype(self.dtype)  # [B, H, W]
    guidance = jnp.stack([similarity, mean.mean(-1), peak(mean, -1)], axis=-1)
    logits = nn.Conv(len(branches), (7, 7), dtype=self.dtype, name="guide")(guidance)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(self.dtype)  # [B, H, W, 5]
    mixed = sum(weights[..., i:i + 1] * branch for i, branch in enumerate(branches))
    scale = self.param("scale", nn.initializers.zeros, (d,)).astype(self.dtype)
    return {"search": mean + scale * mixed, "guidance": guidance, "branch_weights": weights}


def _norm(x: jax.Array) -> jax.Array:
  """The length of the last axis' vectors, float32: [..., D] -> [...].

  Not jnp.linalg.norm, whose gradient at the zero vector is NaN (a crop without any contrast gives one).
  """
  return jnp.sqrt((x.astype(jnp.float32) ** 2).sum(-1) + 1e-12)
