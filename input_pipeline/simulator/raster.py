"""Antialiased drawing of small silhouettes at sub-pixel positions."""

import dataclasses
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

Paints = Sequence[Iterable[float]]  # (opacity 0..1, heat) of each polygon.

Region = tuple[slice, slice]  # Rows and columns.

_SHIFT = 6  # Fractional bits of OpenCV's polygon coordinates.


@dataclasses.dataclass(frozen=True)
class Patch:
  """A rendered silhouette.

  Attributes:
    left, top: view pixel of the patch's first pixel (may lie outside the view).
    opacity: float32 [h, w], 0..1.
    heat: float32 [h, w], opacity times the parts' heat (relative temperature, of either sign).
  """

  left: int
  top: int
  opacity: np.ndarray
  heat: np.ndarray

  @property
  def mean_heat(self) -> float:
    """Mean |heat| where the silhouette is, after the blur: else tiny targets would drown in it."""
    return max(float((np.abs(self.heat) * self.opacity).sum() / max(self.opacity.sum(), 1e-6)), 1e-6)


def render_polygons(polygons: Sequence[np.ndarray], paints: Paints, box: Iterable[float], sigma: float,
                    extent: np.ndarray | None = None, smear: Sequence[float] | np.ndarray = (0.0, 0.0)) -> Patch:
  """Draws polygons so that together they fill a box exactly, then blurs them as the lens does.

  The box is the silhouette's extent *before* the blur. Later polygons cover earlier ones.

  Args:
    polygons: list of [N, 2] points (x to the right, y down), any unit.
    paints: of the polygons.
    box: xywh in view pixels, where the pixel in column i covers i <= x < i + 1.
    sigma: of the lens's Gaussian blur in pixels, 0 for none.
    extent: [2, 2], lowest and highest x, y (in the polygons' unit) that the box stands for; None is that of the
      polygons.
    smear: x, y in pixels by which the silhouette moves, about its place, while the frame is exposed.

  Returns:
    A Patch with room for the blur around the box.
  """
  x, y, w, h = (float(v) for v in box)
  points = np.concatenate(polygons)
  low, high = (points.min(axis=0), points.max(axis=0)) if extent is None else extent
  span = np.maximum(high - low, 1e-9)
  fine = 4 if max(w, h) < 48 else 2  # Samples per pixel and axis.
  reach = float(np.hypot(*smear))
  margin = int(np.ceil(3 * sigma + reach / 2)) + 1
  left, top = int(np.floor(x)) - margin, int(np.floor(y)) - margin
  columns, rows = int(np.ceil(x + w)) + margin - left, int(np.ceil(y + h)) + margin - top
  # fillPoly fills every sample that the outline touches: half a sample less on each side keeps the extent.
  inner = np.maximum([w * fine - 1, h * fine - 1], 0.0)
  scale, origin = inner / span, np.array([(x - left) * fine, (y - top) * fine])
  points = np.round(((points - low) * scale + origin) * (1 << _SHIFT)).astype(np.int32)
  canvas: np.ndarray = np.zeros((rows * fine, columns * fine, 2), np.float32)
  start = 0
  for polygon, (opacity, heat) in zip(polygons, paints, strict=True):
    part = points[start:start + len(polygon)]
    start += len(polygon)
    cv2.fillPoly(canvas, [part], (float(opacity), float(opacity * heat)), cv2.LINE_8, _SHIFT)
  canvas = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA)
  if sigma > 0:
    canvas = cv2.GaussianBlur(canvas, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
  if reach >= 1:
    canvas = cv2.filter2D(canvas, -1, line_kernel(smear), borderType=cv2.BORDER_CONSTANT)
  return Patch(left, top, canvas[..., 0], canvas[..., 1])


def line_kernel(smear: Sequence[float] | np.ndarray) -> np.ndarray:
  """The kernel of a straight motion by x, y pixels: float32 [n, n], n odd, sum 1."""
  half = int(np.ceil(max(abs(v) for v in smear) / 2))
  kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
  steps = (np.arange(16 * half) + 0.5) / (16 * half) - 0.5
  np.add.at(kernel, (np.rint(half + steps * smear[1]).astype(int), np.rint(half + steps * smear[0]).astype(int)), 1)
  return kernel / kernel.sum()


def overlap(patch: Patch, width: int, height: int) -> tuple[Region, Region] | None:
  """Slices of the part of a patch that lies in the view.

  Returns:
    The regions of the view and of the patch, or None when nothing lies in the view.
  """
  rows, columns = patch.opacity.shape
  x0, x1 = max(patch.left, 0), min(patch.left + columns, width)
  y0, y1 = max(patch.top, 0), min(patch.top + rows, height)
  if x0 >= x1 or y0 >= y1:
    return None
  view = slice(y0, y1), slice(x0, x1)
  return view, (slice(y0 - patch.top, y1 - patch.top), slice(x0 - patch.left, x1 - patch.left))
