"""How far the view moved between two frames, by normalised cross-correlation of small images of them.

Each shift is judged by the part that both frames show (Padfield, "Masked object registration in the Fourier domain",
2012, with rectangles as masks), after structure larger than some cells is taken out. Phase correlation, which was here
before, is drawn to a sensor's fixed pattern when half of the scene is new. A moving target hardly counts. What
correlates nowhere, as on a clear sky, counts as no motion.
"""

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.geometry import covered

SIDE = 64  # Of the small images.
_FINE, _COARSE = 0.6, 2.0  # Deviations, in cells, of the Gaussians between which structure is compared,
_LEAST_OVERLAP = 0.3  # share of the frame that both must show,
_CLEAR = 0.3  # the correlation there that is an answer,
_SURE = 0.7  # and one that is hardly ever wrong (all: our choice, on simulated camera jumps).
_PADDED = 2 * SIDE


def thumbnail(frame: jax.Array, shape: jax.Array) -> jax.Array:
  """A frame as SIDE x SIDE area means.

  Args:
    frame: uint8 [H, W] grey levels.
    shape: int32 [2], rows and columns of the frame where it is the top left part of a larger canvas.

  Returns:
    float32 [SIDE, SIDE] grey levels.
  """
  rows, columns = _area_weights(shape[0], frame.shape[0], 2.0**15), _area_weights(shape[1], frame.shape[1], 2.0**8)
  levels = jnp.matmul(rows, frame.astype(jnp.float32), precision="highest")  # [SIDE, W]
  levels = jnp.round(levels * 2.0**8) / 2.0**8  # Weights and levels of so few bits add up exactly in any order.
  return jnp.matmul(levels, columns.T, precision="highest") / columns.sum(1)


def shift(before: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
  """By how many cells (x, y) what is seen in `before` has moved in `after`, both as `thumbnail` makes them.

  Returns:
    float32 [2], of at most SIDE cells, zeros where there is no clear answer; and bool [] whether the answer is sure.
  """
  correlation, share = correlations(before, after)
  # By chance a correlation over few cells is higher than one over many, by the root of their number.
  score = jnp.where(share >= _LEAST_OVERLAP, correlation * jnp.sqrt(share), -1.0)
  row, column = jnp.divmod(score.argmax(), _PADDED)
  near = jnp.roll(score, jnp.stack([1 - row, 1 - column]), (0, 1))[:3, :3]  # The peak in the middle.
  found = jnp.stack([column + _vertex(near[1]), row + _vertex(near[:, 1])])
  highest = correlation[row, column]
  return jnp.where(highest > _CLEAR, (found + SIDE) % _PADDED - SIDE, 0.0), highest > _SURE


def correlations(before: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Of two thumbnails' structure, for every shift (row, column) of the second, modulo 2 SIDE.

  Returns:
    float32 [2 SIDE, 2 SIDE], -1..1, over the cells that both show then; and their share of all cells.
  """
  images = [_band_pass(x) for x in (before, after)]
  one, two, one_squared, two_squared, everywhere = (
      jnp.fft.rfft2(x, (_PADDED, _PADDED)) for x in (*images, *(x**2 for x in images), jnp.ones((SIDE, SIDE))))

  def summed(a: jax.Array, b: jax.Array) -> jax.Array:  # The products, over what both show.
    return jnp.fft.irfft2(jnp.conj(a) * b, (_PADDED, _PADDED))

  cells = _overlap()
  of_one, of_two = summed(one, everywhere), summed(everywhere, two)
  covariance = summed(one, two) - of_one * of_two / cells
  variances = (summed(one_squared, everywhere) - of_one**2 / cells, summed(everywhere, two_squared) - of_two**2 / cells)
  # Where next to nothing is seen of one of them, rounding would decide.
  least = cells * 1e-3 * ((images[0].var() + images[1].var()) / 2 + 1)
  product = jnp.maximum(variances[0], least) * jnp.maximum(variances[1], least)
  return covariance / jnp.sqrt(product), jnp.asarray(cells / SIDE**2)


def _band_pass(image: jax.Array) -> jax.Array:
  """[SIDE, SIDE] between two Gaussians, whose weights are spread over the cells that are there."""

  def blurred(deviation: float) -> jax.Array:
    weights = _gaussian(deviation)
    return jnp.matmul(jnp.matmul(weights, image, precision="highest"), weights.T, precision="highest")

  return blurred(_FINE) - blurred(_COARSE)


def _gaussian(deviation: float) -> np.ndarray:
  """[SIDE, SIDE]: each row the weights of all cells for one."""
  cell = np.arange(SIDE)
  weights = np.exp(-((cell[:, None] - cell) ** 2) / (2 * deviation**2))
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _overlap() -> np.ndarray:
  """[_PADDED, _PADDED]: how many cells both images show at every shift; 1 where it is none."""
  shown = SIDE - np.abs((np.arange(_PADDED) + SIDE) % _PADDED - SIDE)
  return np.maximum(np.outer(shown, shown), 1).astype(np.float32)


def _area_weights(length: jax.Array, canvas: int, steps: float) -> jax.Array:
  """[SIDE, canvas]: the share of each pixel in each of SIDE equal parts of `length` pixels, multiples of 1 / steps."""
  edges = jnp.arange(SIDE + 1) * (length / SIDE)
  pixel = jnp.arange(canvas)
  cover = covered(pixel, pixel + 1, edges[:-1, None], edges[1:, None])
  return jnp.round(cover * (SIDE / length) * steps) / steps


def _vertex(values: jax.Array) -> jax.Array:
  """Where the parabola through three neighbouring values [3] is highest, from the middle one, -0.5 to 0.5."""
  bend = 2 * values[1] - values[0] - values[2]
  return jnp.clip((values[2] - values[0]) / 2 / jnp.maximum(bend, 1e-9), -0.5, 0.5)
