"""DCFAM, dynamic channel feature aggregation module: the mixed template joins the original, without background.

The abstract of arXiv 2512.04581 fixes the purpose; the form is our choice. Outside the target's box nothing of the
mixed template is used: neither for the descriptors nor in the result.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from input_pipeline.geometry import covered
from siamdff_jax.models.backbone import STRIDE


def cell_cover(low: jax.Array, high: jax.Array, side: int) -> jax.Array:
  """The share of each feature cell that a box covers.

  Args:
    low, high: [B, 2] the box's left and top, right and bottom side in pixels from the crop's centre.
    side: cells per side of the (cut) map, whose centre is the crop's.

  Returns:
    [B, side, side] in 0..1.
  """
  left = STRIDE * (jnp.arange(side) - side / 2)  # Left edges of the cells, relative to the centre.
  cover = covered(left, left + STRIDE, low[..., None], high[..., None]) / STRIDE  # [B, (x, y), side]
  return cover[:, 1, :, None] * cover[:, 0, None, :]


def box_mask(box_wh: jax.Array, side: int) -> jax.Array:
  """The share of each feature cell that a centred box covers.

  Args:
    box_wh: [B, 2] width and height of the target in pixels of the template crop, whose centre it shares.
    side: cells per side of the (cut) template map.

  Returns:
    float32 [B, side, side, 1] in 0..1.
  """
  half = box_wh / 2
  return cell_cover(-half, half, side)[..., None]


def pool_inside(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of x [B, h, w, D] weighted by mask [B, h, w, 1] -> [B, D]."""
  return (x * mask).sum((1, 2)) / (mask.sum((1, 2)) + 1e-6)


class DCFAM(nn.Module):
  """Starts as the mean of the original and the (masked) mixed template."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, template: jax.Array, mixed_template: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, h, w, D], [B, h, w, D], mask [B, h, w, 1] in 0..1 -> [B, h, w, D]."""
    d = template.shape[-1]
    mask = mask.astype(self.dtype)
    inside = mixed_template * mask
    descriptors = jnp.concatenate([pool_inside(template, mask), pool_inside(mixed_template, mask)], -1)  # [B, 2D]
    hidden = nn.relu(nn.Dense(max(d // 4, 8), dtype=self.dtype, name="hidden")(descriptors))
    logits = nn.Dense(2 * d, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="logits")(hidden)
    # The softmax over two is a sigmoid of their difference; it starts at 1/2.
    original = jax.nn.sigmoid(logits[:, :d] - logits[:, d:])[:, None, None]  # [B, 1, 1, D]
    # The learned mask can only take away from the box, never reach outside of it.
    learned = nn.Conv(1, (3, 3), dtype=self.dtype, bias_init=nn.initializers.constant(2.0), name="mask")
    keep = mask * jax.nn.sigmoid(learned(jnp.concatenate([template, inside], -1)))  # [B, h, w, 1]
    kept = template + keep * (mixed_template - template)  # The original template where the mask is 0.
    return original * template + (1 - original) * kept
