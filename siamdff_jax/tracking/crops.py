"""Crops on the device, as `input_pipeline.crops` makes them on the host (a test holds the two equal).

Bilinear resampling: the two rows under every row of the crop are gathered, then of these the two columns under every
column, or on TPUs, which gather single pixels badly, a matrix product takes the place of the second. A frame may lie in
the top left of a larger canvas, so that frames of different sizes go through one program. What is outside of the frame
does not change a bit of the crop: the mean is a sum of integers, and pixels (8 bits) times weights (multiples of 2^-15)
add up without rounding in whatever order a matrix product takes.
"""

import jax
import jax.numpy as jnp

from siamdff_jax.models import devices

_WEIGHT_STEPS = 2.0**15  # Per frame pixel; float32 coordinates of a frame 512 pixels wide are no finer.


def crop(frame: jax.Array, window: jax.Array, out_side: int, shape: jax.Array | None = None) -> jax.Array:
  """Resamples a square window of a frame; outside it has the frame's mean.

  Args:
    frame: uint8 [H, W] grey levels.
    window: [3] centre x, centre y, side in frame pixels.
    out_side: pixels per side.
    shape: int32 [2], rows and columns of the frame where it is the top left part of a larger canvas; None: all of it.

  Returns:
    float32 [out_side, out_side].
  """
  shape = jnp.asarray(frame.shape if shape is None else shape, jnp.int32)
  mean = _mean(frame, shape)
  row, row_weights = _taps(window[1], window[2] / out_side, out_side, shape[0])
  column, column_weights = _taps(window[0], window[2] / out_side, out_side, shape[1])
  height, width = frame.shape
  rows = jnp.clip(jnp.stack([row, row + 1]), 0, height - 1)  # [2, out_side]
  if devices.kind() == "tpu":
    index = jnp.arange(width)[:, None]
    columns = sum(jnp.where(index == column + i, column_weights[i], 0) for i in (0, 1))  # [W, out_side]
    values = jnp.matmul(frame[rows].astype(jnp.float32), columns, precision="highest")
  else:
    pixels = [frame[rows[..., None], jnp.clip(column + i, 0, width - 1)].astype(jnp.float32) for i in (0, 1)]
    values = pixels[0] * column_weights[0] + pixels[1] * column_weights[1]  # [2, out_side, out_side]
  inside = row_weights.sum(0)[:, None] * column_weights.sum(0)  # The share of each crop pixel that the frame covers.
  return (values * row_weights[..., None]).sum(0) + (1 - inside) * mean


def _mean(frame: jax.Array, shape: jax.Array) -> jax.Array:
  """float32 []; exact for frames of up to 16 million pixels."""
  rows = jnp.where(jnp.arange(frame.shape[0])[:, None] < shape[0], frame, 0).sum(0, dtype=jnp.uint32)
  total = jnp.where(jnp.arange(frame.shape[1]) < shape[1], rows, 0).sum(dtype=jnp.uint32)
  return total.astype(jnp.float32) / (shape[0] * shape[1]).astype(jnp.float32)


def _taps(centre: jax.Array, step: jax.Array, count: int, length: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Where `count` samples about `centre`, `step` apart, lie on an axis of `length` pixels.

  Returns:
    int32 [count], the first of the two neighbouring pixels; float32 [2, count], the weights of both, 0 where a pixel is
    outside.
  """
  position = centre + (jnp.arange(count) + 0.5 - count / 2) * step - 0.5
  first = jnp.floor(position)
  second_weight = jnp.round((position - first) * _WEIGHT_STEPS) / _WEIGHT_STEPS
  first = first.astype(jnp.int32)
  weights = jnp.stack([1 - second_weight, second_weight])
  pixels = jnp.stack([first, first + 1])
  return first, jnp.where((pixels >= 0) & (pixels < length), weights, 0)
