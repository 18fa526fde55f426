"""Box geometry in JAX. Coordinates are continuous: pixel i covers [i, i+1).

`xywh` is the public form: left, top, width, height. Other forms carry their name: `ltrb` has the four sides,
`center_wh` the centre and the size.
"""

import jax
import jax.numpy as jnp


def xywh_to_center_wh(box: jax.Array) -> jax.Array:
  """[..., 4] -> [..., 4]."""
  return jnp.concatenate([box[..., :2] + box[..., 2:] / 2, box[..., 2:]], -1)


def center_wh_to_xywh(box: jax.Array) -> jax.Array:
  """[..., 4] -> [..., 4]."""
  return jnp.concatenate([box[..., :2] - box[..., 2:] / 2, box[..., 2:]], -1)


def _areas(ltrb: jax.Array) -> jax.Array:
  return jnp.prod(jnp.maximum(ltrb[..., 2:] - ltrb[..., :2], 0), -1)


def _intersection(a: jax.Array, b: jax.Array) -> jax.Array:
  sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
  return jnp.prod(jnp.maximum(sides, 0), -1)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
  """Intersection over union of `ltrb` boxes, [..., 4] x [..., 4] -> [...] in 0..1."""
  both = _intersection(a, b)
  return both / jnp.maximum(_areas(a) + _areas(b) - both, 1e-9)


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
  """Generalised IoU (Rezatofighi et al. 2019) of `ltrb` boxes, in -1..1."""
  both = _intersection(a, b)
  union = _areas(a) + _areas(b) - both
  hull = jnp.prod(jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2]), -1)
  return both / jnp.maximum(union, 1e-9) - (hull - union) / jnp.maximum(hull, 1e-9)


def nwd(a: jax.Array, b: jax.Array, constant: float) -> jax.Array:
  """Normalised Gaussian Wasserstein distance (Wang et al. 2021) of `ltrb` boxes, in 0..1; 1 for equal boxes.

  Each box is a Gaussian with its centre as mean and half its sides as deviations. Smooth also where tiny boxes do not
  overlap.

  Args:
    a, b: [..., 4].
    constant: the scale in pixels, about the mean size of the targets in the crop.
  """
  centre = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
  size = ((a[..., 2:] - a[..., :2]) - (b[..., 2:] - b[..., :2])) / 2
  squared = (centre**2).sum(-1) + (size**2).sum(-1)
  return jnp.exp(-jnp.sqrt(squared + 1e-9) / constant)
