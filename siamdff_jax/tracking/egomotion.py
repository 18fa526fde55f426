"""How far the view moved between two frames, by phase correlation of small images of them.

The phase correlation of two shifted images is a peak at their shift (Kuglin and Hines 1975). Whatever covers most of
the frame decides, so a moving target hardly counts. What is not one clear peak, as on a clear sky, counts as no motion.
"""

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 128  # Of the small images.
_TAPER = 0.125  # Share of the side over which the small images fade out at each border,
_SOFTNESS = 0.15  # deviation of a Gaussian over frequencies, in cycles per cell: sharper detail is noise here,
_CLEAR = 1.5  # how much higher than any other the peak must be (all three: our choice, on simulated camera jumps),
_NEIGHBOURS = 4  # and cells around the peak that belong to it.


def thumbnail(frame: jax.Array, size: jax.Array) -> jax.Array:
  """A frame as SIDE x SIDE area means.

  Args:
    frame: uint8 [H, W] grey levels.
    size: int32 [2], rows and columns of the frame where it is the top left part of a larger canvas.

  Returns:
    float32 [SIDE, SIDE] grey levels.
  """
  rows, columns = _area_weights(size[0], frame.shape[0], 2.0**15), _area_weights(size[1], frame.shape[1], 2.0**8)
  levels = jnp.matmul(rows, frame.astype(jnp.float32), precision="highest")  # [SIDE, W]
  levels = jnp.round(levels * 2.0**8) / 2.0**8  # Weights and levels of so few bits add up exactly in any order.
  return jnp.matmul(levels, columns.T, precision="highest") / columns.sum(1)


def shift(before: jax.Array, after: jax.Array) -> jax.Array:
  """By how many cells (x, y) what is seen in `before` has moved in `after`, both as `thumbnail` makes them.

  Returns:
    float32 [2], -SIDE / 2 to SIDE / 2; zeros where there is no clear answer.
  """
  spectra = [jnp.fft.rfft2((x - x.mean()) * _taper()) for x in (before, after)]
  cross = jnp.conj(spectra[0]) * spectra[1]
  peaks = jnp.fft.irfft2(cross / jnp.maximum(jnp.abs(cross), 1e-6) * _low_pass(), (SIDE, SIDE))
  row, column = jnp.divmod(peaks.argmax(), SIDE)
  centred = jnp.roll(peaks, (SIDE // 2 - row, SIDE // 2 - column), (0, 1))  # The peak in the middle.
  middle = slice(SIDE // 2 - _NEIGHBOURS, SIDE // 2 + _NEIGHBOURS + 1)
  rest = centred.at[middle, middle].set(-jnp.inf).max()
  clear = centred[SIDE // 2, SIDE // 2] > _CLEAR * jnp.maximum(rest, 0)
  near = centred[SIDE // 2 - 1:SIDE // 2 + 2, SIDE // 2 - 1:SIDE // 2 + 2]
  found = jnp.stack([column + _vertex(near[1]), row + _vertex(near[:, 1])])
  return jnp.where(clear, (found + SIDE / 2) % SIDE - SIDE / 2, 0.0)


def _area_weights(length, canvas, steps) -> jax.Array:
  """[SIDE, canvas]: the share of each pixel in each of SIDE equal parts of `length` pixels, multiples of 1 / steps."""
  edges = jnp.arange(SIDE + 1) * (length / SIDE)
  pixel = jnp.arange(canvas)
  cover = jnp.clip(jnp.minimum(pixel + 1, edges[1:, None]) - jnp.maximum(pixel, edges[:-1, None]), 0)
  return jnp.round(cover * (SIDE / length) * steps) / steps


def _taper() -> np.ndarray:
  """[SIDE, SIDE]: 1 in the middle, a cosine's flank at the borders (Tukey)."""
  nearest = np.minimum(np.arange(SIDE) + 0.5, SIDE - 0.5 - np.arange(SIDE)) / (SIDE * _TAPER)
  axis = np.sin(np.pi / 2 * np.minimum(nearest, 1)) ** 2
  return np.outer(axis, axis).astype(np.float32)


def _low_pass() -> np.ndarray:
  """Of a spectrum as `rfft2` orders it."""
  squares = np.fft.fftfreq(SIDE)[:, None] ** 2 + np.fft.rfftfreq(SIDE) ** 2
  return np.exp(-squares / (2 * _SOFTNESS**2)).astype(np.float32)


def _vertex(values) -> jax.Array:
  """Where the parabola through three neighbouring values [3] is highest, from the middle one, -0.5 to 0.5."""
  bend = 2 * values[1] - values[0] - values[2]
  return jnp.clip((values[2] - values[0]) / 2 / jnp.maximum(bend, 1e-9), -0.5, 0.5)
