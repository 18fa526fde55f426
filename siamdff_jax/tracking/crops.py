"""Crops on the device, with the geometry of `input_pipeline.crops` (a test holds the two equal).

Bilinear resampling is written as two small matrix products, weights [out, H] and [out, W]: it runs well on every
backend, vmaps over streams, and exports.
"""

import jax
import jax.numpy as jnp


def template_window(center_wh: jax.Array) -> jax.Array:
  """[4] centre and size of a box -> [3] centre and side of the template window, frame pixels."""
  w, h = center_wh[2], center_wh[3]
  p = (w + h) / 2
  return jnp.stack([center_wh[0], center_wh[1], jnp.sqrt((w + p) * (h + p))])


def crop(frame: jax.Array, window: jax.Array, out_side: int) -> jax.Array:
  """Resamples a square window of a frame; outside it has the frame's mean.

  Args:
    frame: [H, W] grey levels, any dtype.
    window: [3] centre x, centre y, side in frame pixels.
    out_side: pixels per side.

  Returns:
    float32 [out_side, out_side].
  """
  frame = frame.astype(jnp.float32)
  mean = frame.mean()
  step = window[2] / out_side
  index = (jnp.arange(out_side) + 0.5 - out_side / 2) * step - 0.5  # Frame pixel index relative to the centre.

  def weights(centre, size):  # [out_side, size]: the triangle of linear interpolation.
    return jnp.maximum(1 - jnp.abs(centre + index[:, None] - jnp.arange(size)), 0)

  rows, columns = weights(window[1], frame.shape[0]), weights(window[0], frame.shape[1])
  return jnp.matmul(jnp.matmul(rows, frame - mean, precision="highest"), columns.T, precision="highest") + mean
