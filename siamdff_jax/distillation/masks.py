"""From the target's box to weights on the feature grid.

Cell k of n covers the 8 pixels around S/2 + 8 (k - (n-1)/2) of a crop of S pixels, so relative to the crop's centre
the grid does not depend on S.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from siamdff_jax.models.backbone import STRIDE
from siamdff_jax.models.dcfam import cell_cover


class Masks(NamedTuple):
  """Float32 [B, n, n] weights of one branch; `foreground` and `background` each sum to 1, or to 0 where empty."""

  cover: jax.Array  # The share of the cell inside the box, 0..1.
  foreground: jax.Array  # cover / its sum ("1/area").
  background: jax.Array  # (1 - cover) / its sum ("1/(HW - area)").


def _normalised(weight: jax.Array) -> jax.Array:
  """[B, n, n] over each example's sum, or zero."""
  # The floor is far below the 1/64 of a cell that a box of one pixel covers.
  return weight / jnp.maximum(weight.sum((1, 2), keepdims=True), 1e-6)


def _masks(cover: jax.Array) -> Masks:
  """Of the share [B, n, n] of every cell inside the box."""
  return Masks(cover, _normalised(cover), _normalised(1 - cover))


def template_masks(template_wh: jax.Array, side: int) -> Masks:
  """Masks of the template branch.

  Args:
    template_wh: [B, 2] width and height of the target in pixels of the template crop; it is at its centre.
    side: cells per side of the feature map.
  """
  half = template_wh.astype(jnp.float32) / 2
  return _masks(cell_cover(-half, half, side))


def search_masks(search_box_ltrb: jax.Array, present: jax.Array, side: int) -> Masks:
  """Masks of the search branch.

  Args:
    search_box_ltrb: [B, 4] the target's sides in continuous coordinates of the search crop (pixel i covers [i, i+1)).
    present: [B] 1 where the crop holds the target; where it is 0 the box is not looked at and all is background.
    side: cells per side of the feature map; the crop has 8 side + 7 pixels.
  """
  centre = (STRIDE * side + STRIDE - 1) / 2
  exists = (present > 0)[:, None]
  # `where`, not a product: an absent target's box may hold anything, NaN included.
  box = jnp.where(exists, search_box_ltrb.astype(jnp.float32) - centre, 0)
  return _masks(cell_cover(box[:, :2], box[:, 2:], side))
