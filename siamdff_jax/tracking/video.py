"""Annotated video of a track."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.files import write_atomically
from input_pipeline.frames import FrameSource
from siamdff_jax.results import Result
from siamdff_jax.tracking import encoding

RATE = 30.0  # Frames per second of frames without times.
_FASTEST = 120.0  # Frames per second that a video of a variable rate gets at most,
_LONGEST = 10.0  # and seconds that one frame of it is shown at most (our choice: they are repeated frames).
_STEADY = 0.1  # Of the time between two frames: times this near to a constant rate are taken as one.
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


def draw_box(image: np.ndarray, box: np.ndarray, zoom: float, colour: tuple[int, int, int], thickness: int = 1
             ) -> None:
  """Draws a box [4] xywh, in pixels of the frame, into an image of the frame enlarged `zoom` times."""
  near, far = (tuple(round(float(v) * zoom) for v in corner) for corner in (box[:2], box[:2] + box[2:]))
  cv2.rectangle(image, near, far, colour, thickness, cv2.LINE_AA)


def write_text(image: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
  """Writes text into the upper left corner, readable on any background."""
  cv2.putText(image, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 3, cv2.LINE_AA)
  cv2.putText(image, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)


def _inset(image: np.ndarray, clean: np.ndarray, centre: np.ndarray, side: float) -> None:
  """Pastes a magnified view of `clean` around `centre` (x, y) into the lower left corner of `image`."""
  shown, seen = image.shape[0] // 4, max(int(side), 4)
  view = cv2.getRectSubPix(clean, (seen, seen), (float(centre[0]), float(centre[1])))
  image[-shown:, :shown] = cv2.resize(view, (shown, shown), interpolation=cv2.INTER_LINEAR)
  cv2.rectangle(image, (0, image.shape[0] - shown), (shown, image.shape[0] - 1), (200, 200, 200), 1)


def write(path: str, frames: Iterable[np.ndarray | UserError], result: Result, times: np.ndarray | None = None,
          truth: np.ndarray | None = None) -> None:
  """Writes an H.264 mp4 that plays in a browser, at the pace of the source: whole or not at all.

  Args:
    path: the file.
    frames: uint8 [H, W]; an error, or a frame of another size than the first, is shown as missing.
    result: of the same length.
    times: float64 [T], seconds, see `schedule`.
    truth: [T, 4] xywh, or None.

  Raises:
    UserError: the file cannot be written.
  """
  rate, repeats = schedule(times, len(result))
  encoding.encode(path, _repeated(_annotated(frames, result, truth), repeats), rate)


def schedule(times: np.ndarray | None, count: int) -> tuple[float, np.ndarray]:
  """How a video of a constant rate shows frames at their times: (frames per second, int [T] how often each is shown).

  A variable rate is shown at that of its closest frames (120 a second at most; frames closer than that may be left
  out), others are repeated; pauses of more than 10 s last 10 s.

  Args:
    times: float64 [T], seconds, or None: 30 frames per second.
    count: T.
  """
  once = np.ones(count, int)
  if times is None or count < 2 or not times[-1] > times[0]:
    return RATE, once
  rate = (count - 1) / float(times[-1] - times[0])
  if np.abs((times - times[0]) * rate - np.arange(count)).max() <= _STEADY:
    return rate, once
  steps = np.clip(np.diff(times), 0, _LONGEST)
  rate = float(min(1 / steps[steps > 0].min(), _FASTEST))
  shown = np.round(np.concatenate([[0.0], np.cumsum(steps)]) * rate).astype(int)
  return rate, np.diff(shown, append=shown[-1] + 1)


def _annotated(frames: Iterable[np.ndarray | UserError], result: Result, truth: np.ndarray | None
               ) -> Iterator[np.ndarray]:
  shape, blank = None, np.zeros(0, np.uint8)  # Of the first frame, and in the place of one that is missing.
  for t, frame in enumerate(frames):
    if isinstance(frame, UserError) and t == 0:
      raise frame
    if isinstance(frame, UserError) or shape not in (None, frame.shape):
      image = blank.copy()
      write_text(image, f"{t}  not readable", _ABSENT)
    else:
      image = _annotated_one(frame, result, truth, t)
      shape, blank = frame.shape, np.zeros_like(image)
    yield image


def _annotated_one(frame: np.ndarray, result: Result, truth: np.ndarray | None, t: int) -> np.ndarray:
  score = 1.0 if result.score is None else float(result.score[t])
  return annotate(frame, result.boxes[t], bool(result.present[t]), score, t, None if truth is None else truth[t])


def _repeated(images: Iterable[np.ndarray], repeats: np.ndarray) -> Iterator[np.ndarray]:
  for image, count in zip(images, repeats, strict=True):
    for _ in range(count):
      yield image


def write_strip(path: str, frames: FrameSource, result: Result, truth: np.ndarray | None = None, columns: int = 3,
                rows: int = 2) -> None:
  """Writes an image of columns x rows annotated frames, evenly spaced over the sequence; arguments as `write`."""
  picks = np.linspace(0, len(frames) - 1, columns * rows).round().astype(int)
  tiles = [_annotated_one(frames[int(t)], result, truth, int(t)) for t in picks]
  sheet = np.vstack([np.hstack(tiles[r * columns:(r + 1) * columns]) for r in range(rows)])
  write_atomically(path, cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())
