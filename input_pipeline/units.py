"""Whether boxes are in pixels at all."""

import numpy as np


def is_normalised(boxes) -> bool:
  """Whether boxes [N, 4] can only be shares of the frame (0..1), as YOLO and others write them, and not pixels.

  So it is when all numbers of all boxes with a size lie within 0 and 1 and not all of them are whole numbers. A target
  that is smaller than one pixel in every frame, in the first pixel of each, is nothing that a camera shows.

  Args:
    boxes: float [N, 4], in xywh, as corners or as centre and size; those without a size are left out.
  """
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  boxes = boxes[(boxes[:, 2:] > 0).all(axis=1)]
  return bool(len(boxes) and ((boxes >= 0) & (boxes <= 1)).all() and (boxes % 1 != 0).any())
