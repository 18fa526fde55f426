"""A picture of a simulated data set that one can look at."""

import cv2
import numpy as np

_TILE = 320  # Pixels per tile and side.


def contact_sheet(sequences, columns: int = 4) -> np.ndarray:
  """Whole frames with the box drawn, each with an enlarged crop around its target in the corner.

  Args:
    sequences: (sequence, frame number) pairs.
    columns: tiles per row.

  Returns:
    uint8 [H, W, 3], BGR.
  """
  tiles = [_tile(sequence, t) for sequence, t in sequences]
  blank = np.zeros_like(tiles[0])
  rows = [tiles[i:i + columns] for i in range(0, len(tiles), columns)]
  rows[-1] += [blank] * (columns - len(rows[-1]))
  return np.vstack([np.hstack(row) for row in rows])


def _tile(sequence, t):
  frame = sequence.frames[t]
  scale = 2 * _TILE / frame.shape[1]
  picture = cv2.resize(frame, (2 * _TILE, round(frame.shape[0] * scale)), interpolation=cv2.INTER_CUBIC)
  picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
  caption = f"{sequence.name} frame {t} {' '.join(sequence.attributes)}"
  if sequence.visible[t]:
    x, y, w, h = (float(v) for v in sequence.boxes[t])
    side = int(max(3 * max(w, h), 24))
    crop = cv2.getRectSubPix(frame, (side, side), (x + w / 2 - 0.5, y + h / 2 - 0.5))
    inset = cv2.cvtColor(cv2.resize(crop, (200, 200), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    zoom = 200 / side
    corner = [round(100 - w / 2 * zoom), round(100 - h / 2 * zoom)]
    cv2.rectangle(inset, corner, [round(100 + w / 2 * zoom), round(100 + h / 2 * zoom)], (0, 200, 0), 1)
    a, b = [int((x - 3) * scale), int((y - 3) * scale)], [int((x + w + 3) * scale), int((y + h + 3) * scale)]
    cv2.rectangle(picture, a, b, (0, 0, 255), 1)
    left = 0 if x + w / 2 > frame.shape[1] / 2 else picture.shape[1] - 200
    picture[-200:, left:left + 200] = inset
  else:
    caption += " (absent)"
  cv2.putText(picture, caption, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 255, 255), 1, cv2.LINE_AA)
  return picture
