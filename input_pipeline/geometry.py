"""Geometry of boxes and windows, the same for NumPy and JAX: every function computes with its arguments' array module.

Coordinates are continuous: pixel i covers [i, i+1). Boxes are named after their form: `xywh` (left, top, width,
height; the public form), `ltrb` (the four sides), `center_wh` (centre and size). A window is a square: centre x, centre
y, side. With p = (w + h) / 2 the template window of a box has the side sqrt((w + p)(h + p)), the search window that
times search_side / template_side (SiamFC's convention).
"""

from typing import Any

Array = Any  # A numpy.ndarray or a jax.Array; the answers are of the same kind.


def xywh_to_center_wh(box: Array) -> Array:
  """[..., 4] -> [..., 4]."""
  return _joined(box[..., :2] + box[..., 2:] / 2, box[..., 2:])


def center_wh_to_xywh(box: Array) -> Array:
  """[..., 4] -> [..., 4]."""
  return _joined(box[..., :2] - box[..., 2:] / 2, box[..., 2:])


def xywh_to_ltrb(box: Array) -> Array:
  """[..., 4] -> [..., 4]."""
  return _joined(box[..., :2], box[..., :2] + box[..., 2:])


def center_wh_to_ltrb(box: Array) -> Array:
  """[..., 4] -> [..., 4]."""
  return _joined(box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2)


def template_side(wh: Array) -> Array:
  """Sizes [..., 2] -> the sides of their template windows [...], in the same pixels."""
  w, h = wh[..., 0], wh[..., 1]
  p = (w + h) / 2
  return wh.__array_namespace__().sqrt((w + p) * (h + p))


def extent(wh: Array) -> Array:
  """Sizes [..., 2] -> the side of a square target, of others half of the template window's; [...], the same pixels."""
  return template_side(wh) / 2


def template_window(xywh: Array) -> Array:
  """[..., 4] -> template windows [..., 3] (centre x, centre y, side), in the same pixels."""
  return _joined(xywh[..., :2] + xywh[..., 2:] / 2, template_side(xywh[..., 2:])[..., None])


def to_crop(xywh: Array, window: Array, out_side: int) -> Array:
  """Boxes in a frame -> their sides `ltrb` in the crop of a window.

  Args:
    xywh: [..., 4] frame pixels.
    window: [..., 3] frame pixels.
    out_side: pixels per side of the crop.

  Returns:
    [..., 4] crop pixels.
  """
  scale = (out_side / window[..., 2])[..., None]
  low = (xywh[..., :2] - window[..., :2]) * scale + out_side / 2
  return _joined(low, low + xywh[..., 2:] * scale)


def covered(low: Array, high: Array, start: Array, end: Array) -> Array:
  """How much of the intervals [low, high) lies in [start, end), >= 0, in their unit; shapes broadcast."""
  xp = low.__array_namespace__()
  return xp.clip(xp.minimum(high, end) - xp.maximum(low, start), 0, None)


def intersection(a: Array, b: Array) -> Array:
  """Areas [...] that boxes `ltrb` [..., 4] have in common."""
  return covered(a[..., :2], a[..., 2:], b[..., :2], b[..., 2:]).prod(-1)


def area(ltrb: Array) -> Array:
  """[..., 4] -> [...]; 0 where a side is negative."""
  return ltrb.__array_namespace__().clip(ltrb[..., 2:] - ltrb[..., :2], 0, None).prod(-1)


def iou(a: Array, b: Array) -> Array:
  """Intersection over union of boxes `ltrb`, [..., 4] x [..., 4] -> [...] in 0..1; 0 where both areas are zero."""
  return _iou(intersection(a, b), area(a), area(b))


def iou_xywh(a: Array, b: Array) -> Array:
  """Intersection over union of boxes `xywh`, [..., 4] x [..., 4] -> [...] in 0..1, without the +1 of old toolkits.

  0 where both areas are zero or a size is negative, NaN where a box is NaN. The areas are the products of the sizes, as
  in the benchmarks' toolkits: those of `xywh_to_ltrb` differ by rounding, and thresholds are sharp.
  """
  both = intersection(xywh_to_ltrb(a), xywh_to_ltrb(b))
  return both.__array_namespace__().clip(_iou(both, a[..., 2:].prod(-1), b[..., 2:].prod(-1)), 0, 1)


def _iou(both: Array, of_a: Array, of_b: Array) -> Array:
  return both / both.__array_namespace__().maximum(of_a + of_b - both, 1e-9)


def _joined(*parts: Array) -> Array:
  return parts[0].__array_namespace__().concatenate(parts, -1)
