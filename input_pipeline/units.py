"""Whether boxes are in pixels at all."""

import numpy as np
from numpy.typing import ArrayLike


def is_normalised(boxes: ArrayLike) -> bool:
  """Whether boxes [N, 4] can only be shares of the frame (0..1), as YOLO and others write them, and not pixels.

  So it is when most boxes with a size lie within one frame's length of the corner and are smaller than a pixel, and not
  all of their numbers are whole. That a target is so in its frames is nothing that a camera shows. One that sticks out
  of its frame has shares a little below 0 or above 1.

  Args:
    boxes: float [N, 4], in xywh, as corners or as centre and size; those without a size are left out.
  """
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  boxes = boxes[(boxes[:, 2:] > 0).all(axis=1)]
  shares = ((boxes[:, 2:] <= 1) & (boxes[:, :2] > -1) & (boxes[:, :2] < 2) & (boxes[:, :2] + boxes[:, 2:] <= 2)).all(1)
  return bool(len(boxes) and shares.mean() > 0.5 and (boxes[shares] % 1 != 0).any())
