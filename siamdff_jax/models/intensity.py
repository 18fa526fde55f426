"""Intensity prior: how much a place of the crop stands out from its surround, hot or cold.

For each scale, |mean(inner window) - mean(ring around it)| / std(ring), where the inner window is a square and the
ring the square three times as wide without it. It is evaluated on a grid of half the feature stride and
average-pooled to the feature grid. Windows are cut at the crop's border. (The abstract asks for intensity-aware
attention; this prior is our choice: the centre-surround contrast of infrared small-target detection.)
"""

import jax
import jax.numpy as jnp
import numpy as np

from siamdff_jax.models.backbone import STRIDE, feature_side

SCALES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # Inner window widths as fractions of the template's side.
_FLOOR = 2.0 / 255.0  # Two grey levels: below that, a surround's deviation is sensor noise.


def _window_sums(side: int, width: int) -> np.ndarray:
  """[2n, side] 0/1 rows: which pixels lie in the window of odd `width` around each point of the half-stride grid."""
  n = feature_side(side)
  cells = (side - 1) / 2 + STRIDE * (np.arange(n) - (n - 1) / 2)
  points = (cells[:, None] + np.array([-STRIDE / 4, STRIDE / 4])).reshape(-1, 1)  # [2n, 1]
  return (np.abs(np.arange(side) - points) <= width // 2).astype(np.float32)


def intensity_prior(image: jax.Array, template_side: int) -> jax.Array:
  """Contrast maps of a crop.

  Args:
    image: [B, S, S, 1], grey levels in [0, 1].
    template_side: the pixels that the windows' widths are fractions of.

  Returns:
    float32 [B, S//8, S//8, len(SCALES)], log(1 + contrast), >= 0. No gradient flows into the image.
  """
  x = jax.lax.stop_gradient(image[..., 0].astype(jnp.float32))  # [B, S, S]
  x = x - x.mean(axis=(1, 2), keepdims=True)  # Keeps the variance below exact to rounding.
  side, n = x.shape[1], feature_side(x.shape[1])
  inner = [2 * round((template_side * scale - 1) / 2) + 1 for scale in SCALES]  # The nearest odd widths.
  rows = np.stack([_window_sums(side, factor * width) for factor in (1, 3) for width in inner])  # [2 scales, 2n, S]
  # Sums of x and of x^2 over every window: all windows' rows in one product, then each one's columns.
  both = jnp.stack([x, x * x], 1)  # [B, 2, S, S]
  across = jnp.einsum("rh,bvhw->bvrw", rows.reshape(-1, side), both, precision="highest")
  total = jnp.einsum("bvkpw,kqw->bvkpq", across.reshape(*both.shape[:2], *rows.shape), rows, precision="highest")
  count = rows.sum(-1)
  count = (count[:, :, None] * count[:, None]).reshape(2, len(SCALES), 2 * n, 2 * n)
  total = total.reshape(-1, 2, *count.shape)  # [B, (x, x^2), (inner, outer), scales, 2n, 2n]
  ring_count, ring = count[1] - count[0], total[:, :, 1] - total[:, :, 0]
  ring_mean = ring[:, 0] / ring_count
  ring_variance = ring[:, 1] / ring_count - ring_mean**2
  contrast = jnp.abs(total[:, 0, 0] / count[0] - ring_mean) / jnp.sqrt(jnp.maximum(ring_variance, _FLOOR**2))
  contrast = contrast.reshape(-1, len(SCALES), n, 2, n, 2).mean((3, 5))
  return jnp.log1p(jnp.moveaxis(contrast, 1, -1))
