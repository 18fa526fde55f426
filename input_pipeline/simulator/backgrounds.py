"""Real frames as the scenes that simulated targets fly before."""

import cv2
import numpy as np

from input_pipeline.sequences import Sequence
from input_pipeline.simulator.scene import Scene

_MARGIN = 0.5  # Of the target's sides, painted over on every side of its box: halos, loose or lagging labels.
_RADIUS = 5  # Pixels about a hole that its filling is made from.
_SMALLEST, _LARGEST = 0.75, 1.6  # Widths of the picture in views.


def without_target(sequence: Sequence, rng: np.random.Generator) -> np.ndarray:
  """A frame of a sequence with its target painted over by what surrounds it (OpenCV's inpainting), uint8 [H, W]."""
  assert sequence.frames is not None
  t = int(rng.integers(len(sequence)))
  frame = sequence.frames[t]
  if not sequence.visible[t]:
    return frame
  x, y, w, h = sequence.boxes[t]
  left, top = np.floor([x - _MARGIN * w, y - _MARGIN * h]).astype(int).clip(0)
  right, bottom = np.ceil([x + (1 + _MARGIN) * w, y + (1 + _MARGIN) * h]).astype(int)
  hole = np.zeros_like(frame)
  hole[top:bottom, left:right] = 255
  return cv2.inpaint(frame, hole, _RADIUS, cv2.INPAINT_TELEA)


def photographed_scene(rng: np.random.Generator, picture: np.ndarray, view_width: int, columns: int,
                       rows: int) -> Scene:
  """A panorama made of a real frame, mirrored at its edges where it ends. Where its horizon is, is not known.

  Args:
    rng: of this sequence's scene.
    picture: uint8 [H, W], grey levels.
    view_width: of the view in pixels.
    columns, rows: of the panorama.
  """
  scale = view_width / picture.shape[1] * rng.uniform(_SMALLEST, _LARGEST)
  if rng.random() < 0.5:
    picture = picture[:, ::-1]
  enlarged = cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale,
                        interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
  missing = np.maximum(np.array([rows, columns]) - enlarged.shape, 0)
  before = (missing * rng.random(2)).astype(int)
  panorama = np.pad(enlarged, np.stack([before, missing - before], 1), mode="reflect")
  top, left = (int(rng.integers(n + 1)) for n in np.array(panorama.shape) - (rows, columns))
  radiance = np.ascontiguousarray(panorama[top:top + rows, left:left + columns], np.float32)
  return Scene(radiance, np.zeros((rows, columns), np.float32), rows, view_width / 640)
