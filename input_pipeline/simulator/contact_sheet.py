"""A picture of a simulated data set that one can look at."""

from collections.abc import Iterable

import cv2
import numpy as np

from input_pipeline.sequences import Sequence

_WIDTH, _HEIGHT, _INSET = 640, 512, 200  # Pixels of a tile and of the enlarged crop in it.


def contact_sheet(sequences: Iterable[tuple[Sequence, int]], columns: int = 4) -> np.ndarray:
  """Whole frames with the box drawn, each with an enlarged crop around its target in the corner.

  Args:
    sequences: each, with its frames, and the number of the frame to show.
    columns: tiles per row.

  Returns:
    uint8 [H, W, 3], BGR.
  """
  tiles = [_tile(sequence, t) for sequence, t in sequences]
  tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
  rows = [tiles[i:i + columns] for i in range(0, len(tiles), columns)]
  return np.vstack([np.hstack(row) for row in rows])


def _tile(sequence: Sequence, t: int) -> np.ndarray:
  assert sequence.frames is not None
  frame = sequence.frames[t]
  scale = min(_WIDTH / frame.shape[1], _HEIGHT / frame.shape[0])
  shown = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
  picture = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
  picture[:shown.shape[0], :shown.shape[1]] = shown[..., None]
  caption = f"{sequence.name} frame {t} {' '.join(sequence.attributes)}"
  if sequence.visible[t]:
    x, y, w, h = (float(v) for v in sequence.boxes[t])
    a, b = [int((x - 3) * scale), int((y - 3) * scale)], [int((x + w + 3) * scale), int((y + h + 3) * scale)]
    cv2.rectangle(picture, a, b, (0, 0, 255), 1)
    left = 0 if x + w / 2 > frame.shape[1] / 2 else _WIDTH - _INSET
    picture[-_INSET:, left:left + _INSET] = _inset(frame, x, y, w, h)
  else:
    caption += " (absent)"
  cv2.putText(picture, caption, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 255, 255), 1, cv2.LINE_AA)
  return picture


def _inset(frame: np.ndarray, x: float, y: float, w: float, h: float) -> np.ndarray:
  """The box and as much around it, enlarged."""
  side = int(max(3 * max(w, h), 24))
  crop = cv2.getRectSubPix(frame, (side, side), (x + w / 2 - 0.5, y + h / 2 - 0.5))
  inset = cv2.cvtColor(cv2.resize(crop, (_INSET, _INSET), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
  zoom, middle = _INSET / side, _INSET / 2
  cv2.rectangle(inset, [round(middle - w / 2 * zoom), round(middle - h / 2 * zoom)],
                [round(middle + w / 2 * zoom), round(middle + h / 2 * zoom)], (0, 200, 0), 1)
  return inset
