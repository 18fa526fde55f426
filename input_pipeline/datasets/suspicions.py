"""Labels that can be read but are perhaps not what they are taken for: corners, or pixels of other frames.

Nothing of this is sure, so it makes warnings in `checking`, not errors. What is sure is refused where labels are read:
numbers from 0 to 1 (`labels`), and boxes outside of their frames (`loading`).
"""

from collections.abc import Sequence as Ordered

import numpy as np

_FEWEST = 5  # Sequences that have to agree before something is said of the whole data set.
_CONFINED = 0.6  # Of the frame's width and height.


def are_corners(boxes: np.ndarray, frame_wh: np.ndarray) -> bool:
  """Whether boxes read as x,y,w,h look like x1,y1,x2,y2.

  As corners, all of them are boxes inside their frames; as x,y,w,h some reach beyond their frame, or their sizes change
  more than they would as corners, because the place is in them.

  Args:
    boxes: float64 [N, 4] of visible targets.
    frame_wh: width and height of their frames, [N, 2].
  """
  if not len(boxes) or (boxes < 0).any():
    return False
  first, second = boxes[:, :2], boxes[:, 2:]
  if not ((second > first) & (second <= frame_wh + 1)).all():
    return False
  beyond = (first + second > frame_wh + 1).any(axis=1)
  steadier = (np.std(second - first, axis=0) < 0.5 * np.std(second, axis=0)).all()
  return bool(beyond.mean() > 0.5 or (steadier and beyond.any()))


def confined(reaches: Ordered[np.ndarray]) -> tuple[float, float] | None:
  """Of a whole data set: whether no box leaves the top left part of the frames, as labels of smaller frames do.

  Args:
    reaches: for each sequence with boxes, the furthest right and lower edge of a box as a share of its frame, [2].

  Returns:
    The furthest of all; None where some reach further, or the sequences are few.
  """
  furthest = np.max(reaches, axis=0) if len(reaches) >= _FEWEST else np.ones(2)
  return tuple(float(x) for x in furthest) if (furthest <= _CONFINED).all() else None
