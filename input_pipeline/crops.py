"""Crops on the host; `siamdff_jax.tracking.crops` makes the same ones on the device, `geometry` says which windows.

A crop is a square window that is resampled bilinearly to `out_side` pixels; what lies outside of the frame has the
frame's mean grey level.
"""

import cv2
import numpy as np


def crop(frame: np.ndarray, window: np.ndarray, out_side: int, mean: float | None = None) -> np.ndarray:
  """Resamples a window of a frame.

  Args:
    frame: uint8 [H, W], the frame or a cutout of it.
    window: (centre x, centre y, side) in pixels of `frame`.
    out_side: pixels per side of the crop.
    mean: grey level outside of `frame`; by default its mean.

  Returns:
    float32 [out_side, out_side], grey levels 0..255.
  """
  x, y, side = (float(v) for v in window)
  mean = cv2.mean(frame)[0] if mean is None else mean
  # Only the part of the frame under the window (and one pixel around, for the interpolation) is touched.
  height, width = frame.shape
  x0, x1 = np.clip([int(np.floor(x - side / 2)) - 1, int(np.ceil(x + side / 2)) + 2], 0, width)
  y0, y1 = np.clip([int(np.floor(y - side / 2)) - 1, int(np.ceil(y + side / 2)) + 2], 0, height)
  if x0 >= x1 or y0 >= y1:
    return np.full((out_side, out_side), mean, np.float32)
  step = side / out_side  # Frame pixels per crop pixel.
  # Pixel-index coordinates: crop index i is at frame index (i + 0.5 - out/2) * step + x - 0.5.
  offset = (0.5 - out_side / 2) * step - 0.5
  matrix = np.array([[step, 0, x + offset - x0], [0, step, y + offset - y0]])
  return cv2.warpAffine(frame[y0:y1, x0:x1].astype(np.float32), matrix, (out_side, out_side),
                        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT,
                        borderValue=mean)
