"""Label assignment: which cells of the response map learn what."""

import jax
import jax.numpy as jnp

from siamdff_jax.models.backbone import STRIDE


def cell_grid(side: int, search_side: int) -> jax.Array:
  """Centres of the response cells in continuous search-crop coordinates: float32 [side, side, 2] as (x, y)."""
  centres = search_side / 2 + STRIDE * (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2)
  return jnp.stack(jnp.meshgrid(centres, centres), -1)


def boxes_from_ltrb(ltrb: jax.Array, search_side: int) -> jax.Array:
  """The head's distances [B, n, n, 4] -> boxes as sides `box_ltrb` [B, n, n, 4], search-crop coordinates."""
  grid = cell_grid(ltrb.shape[1], search_side)
  return jnp.concatenate([grid - ltrb[..., :2], grid + ltrb[..., 2:]], -1)


def assign(box_ltrb: jax.Array, present: jax.Array, side: int, search_side: int, central: float = 0.5
           ) -> dict[str, jax.Array]:
  """Labels of every response cell (FCOS' centre sampling; the nearest-cell rule is our choice for tiny targets).

  Args:
    box_ltrb: [B, 4] the target's sides in search-crop coordinates.
    present: [B] 1 where the crop holds the target, else 0 (then every cell is negative).
    side: cells per side of the response map.
    search_side: pixels of the search crop.
    central: cells inside the box shrunk by this factor are positive. So is the cell nearest to the centre, as long as
      the centre lies within the response map (within half a stride of its outermost cells).

  Returns:
    float32 "positive", "negative" [B, n, n] masks (cells in the box's rim are neither) and "centerness" [B, n, n].
  """
  grid = cell_grid(side, search_side)[None]  # [1, n, n, 2]
  box = box_ltrb[:, None, None, :]
  centre, wh = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
  offset = grid - centre  # [B, n, n, 2]
  # Half-open, so that a centre midway between cells still has one nearest cell.
  nearest = ((offset >= -STRIDE / 2) & (offset < STRIDE / 2)).all(-1)
  offset = jnp.abs(offset)
  inside = (offset < wh / 2).all(-1)
  exists = present[:, None, None] > 0
  positive = ((offset < central * wh / 2).all(-1) | nearest) & exists
  negative = ~(inside | nearest) | ~exists
  lt, rb = jnp.maximum(grid - box[..., :2], 0), jnp.maximum(box[..., 2:] - grid, 0)
  ratio = jnp.minimum(lt, rb) / jnp.maximum(jnp.maximum(lt, rb), 1e-6)
  centerness = jnp.sqrt(ratio[..., 0] * ratio[..., 1])
  return {"positive": positive.astype(jnp.float32), "negative": negative.astype(jnp.float32), "centerness": centerness}
