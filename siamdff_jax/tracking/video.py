"""Annotated video of a track."""

import cv2
import imageio.v2 as imageio
import numpy as np

from input_pipeline.errors import DataError
from siamdff_jax.evaluation.results import Result

_PREDICTED, _TRUTH, _ABSENT = (90, 255, 90), (255, 200, 60), (255, 80, 80)  # RGB


def annotate(frame: np.ndarray, box: np.ndarray, present: bool, score: float, index: int,
             truth: np.ndarray | None = None) -> np.ndarray:
  """Draws one frame.

  Args:
    frame: uint8 [H, W].
    box: [4] xywh, not drawn while absent.
    present: whether the tracker sees the target.
    score: 0..1, written beside the box.
    index: frame number.
    truth: [4] xywh or None.

  Returns:
    uint8 [H, W, 3] RGB, enlarged to at least 480 rows, with a magnified view of the target in a corner.
  """
  zoom = max(1, round(480 / frame.shape[0]))
  image = cv2.resize(frame, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
  clean = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
  image = clean.copy()
  if truth is not None and truth[2] > 0:
    draw_box(image, truth, zoom, _TRUTH)
  text, colour = f"{index}  absent", _ABSENT
  if present:
    box = np.asarray(box, np.float64)
    draw_box(image, box, zoom, _PREDICTED)
    text, colour = f"{index}  score {score:.2f}", _PREDICTED
    _inset(image, clean, (box[:2] + box[2:] / 2) * zoom, 2 * max(box[2:].max(), 8) * zoom)
  write_text(image, text, colour)
  return image


def draw_box(image: np.ndarray, box: np.ndarray, zoom: float, colour: tuple[int, int, int], thickness: int = 1):
  """Draws a box [4] xywh, in pixels of the frame, into an image of the frame enlarged `zoom` times."""
  near, far = (tuple(round(float(v) * zoom) for v in corner) for corner in (box[:2], box[:2] + box[2:]))
  cv2.rectangle(image, near, far, colour, thickness, cv2.LINE_AA)


def write_text(image: np.ndarray, text: str, colour: tuple[int, int, int]):
  """Writes text into the upper left corner, readable on any background."""
  cv2.putText(image, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 3, cv2.LINE_AA)
  cv2.putText(image, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)


def _inset(image, clean, centre, side):
  """Pastes a magnified view around `centre` into the lower left corner."""
  size = image.shape[0] // 4
  view = cv2.getRectSubPix(clean, (max(int(side), 4),) * 2, (float(centre[0]), float(centre[1])))
  image[-size:, :size] = cv2.resize(view, (size, size), interpolation=cv2.INTER_LINEAR)
  cv2.rectangle(image, (0, image.shape[0] - size), (size, image.shape[0] - 1), (200, 200, 200), 1)


def write(path: str, frames, result: Result, fps: float = 30.0, truth: np.ndarray | None = None):
  """Writes an H.264 mp4 that plays in a browser.

  Args:
    path: the file.
    frames: an iterable of uint8 [H, W].
    result: of the same length.
    fps: frames per second.
    truth: [T, 4] xywh, or None.

  Raises:
    DataError: the file cannot be written.
  """
  try:
    with imageio.get_writer(path, fps=fps, codec="libx264", macro_block_size=2, quality=8) as writer:
      for t, frame in enumerate(frames):
        score = 1.0 if result.score is None else float(result.score[t])
        writer.append_data(annotate(frame, result.boxes[t], bool(result.present[t]), score, t,
                                    None if truth is None else truth[t]))
  except OSError as error:
    raise DataError(f"{path}: the video cannot be written ({error})") from error


def write_strip(path: str, frames, result: Result, truth: np.ndarray | None = None, columns: int = 3, rows: int = 2):
  """Writes an image of columns x rows annotated frames, evenly spaced over the sequence; arguments as `write`."""
  picks = np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)
  tiles = []
  for t in picks:
    score = 1.0 if result.score is None else float(result.score[t])
    tiles.append(annotate(frames[int(t)], result.boxes[t], bool(result.present[t]), score, int(t),
                          None if truth is None else truth[t]))
  sheet = np.vstack([np.hstack(tiles[r * columns:(r + 1) * columns]) for r in range(rows)])
  if not cv2.imwrite(path, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
    raise DataError(f"{path}: the picture cannot be written")
