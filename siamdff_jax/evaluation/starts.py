"""How a tracker is started on a sequence: from its true first box, from moved ones, or anew after each failure.

The moved ones are those of OTB's spatial robustness evaluation, SRE (Wu, Lim, Yang, CVPR 2013): eight shifts by a
tenth of the target's size, along the axes and to the corners, and four scales about the centre.
"""

import numpy as np

# Once per sequence from its first box (OPE); from twelve moved first boxes (SRE); or started anew from the truth after
# each failure (VOT).
RUNS = ("ope", "sre", "reset")
_SHIFT = 0.1
_SHIFTS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "top_left": (-1, -1), "top_right": (1, -1),
           "bottom_left": (-1, 1), "bottom_right": (1, 1)}
_SCALES = {"scale_8": 0.8, "scale_9": 0.9, "scale_11": 1.1, "scale_12": 1.2}
SRE = (*_SHIFTS, *_SCALES)  # Names of the moved starts, in order.


def moved(box: np.ndarray, start: str) -> np.ndarray:
  """The box [4] xywh, moved as the name in SRE says; float64 [4]."""
  xy, wh = np.split(np.asarray(box, np.float64), 2)
  if start in _SHIFTS:
    return np.concatenate([xy + _SHIFT * wh * _SHIFTS[start], wh])
  scaled = wh * _SCALES[start]
  return np.concatenate([xy + (wh - scaled) / 2, scaled])
