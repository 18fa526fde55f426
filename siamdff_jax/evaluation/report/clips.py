"""Short clips and strips of the sequences that the trackers find hardest: the truth and their boxes."""

import dataclasses
import io
from collections.abc import Mapping
from collections.abc import Sequence as Ordered

import cv2
import imageio.v2 as imageio
import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report.styles import TRUTH_COLOUR, styles
from siamdff_jax.results import Result
from siamdff_jax.tracking import video

WORST = 6  # Sequences that a report shows in full.
_MOST_TRACKERS = 8  # In one clip; more boxes hide each other.
_FRAMES, _BEFORE = 90, 30  # Length, and how much of it lies before the first loss.
_SIDE = 320  # Pixels: height of a clip and side of its magnified half.
_WIDEST = 560
_COLUMNS, _ROWS, _TILE_SIDE = 3, 2, 200  # Of a strip.
_FPS = 15
_FAR = 5000  # Pixels outside a view; boxes are cut off there, since OpenCV cannot draw to any distance.
# At most about 45 kB a second.
_ENCODING = ["-crf", "27", "-preset", "medium", "-maxrate", "340k", "-bufsize", "340k", "-movflags", "+faststart"]
_Drawn = tuple[np.ndarray, tuple[int, int, int], int]  # Box [4] xywh, colour, and by how much its lines are wider.


@dataclasses.dataclass(frozen=True)
class Clip:
  """A piece of a sequence, drawn.

  Attributes:
    video: an H.264 mp4: on the left the whole frame, on the right a magnified view that follows the truth.
    poster: a JPEG of its middle frame, to show before it plays.
    strip: a JPEG of six of the magnified views, in two rows.
    trackers: those that are drawn.
    first, last: frame numbers.
  """

  video: bytes
  poster: bytes
  strip: bytes
  trackers: tuple[str, ...]
  first: int
  last: int


def worst_sequences(comparison: Comparison, count: int) -> list[str]:
  """The `count` sequences with the lowest mean of the main score over trackers, the worst first."""
  means = {name: np.mean([_score(comparison, tracker, name) for tracker in comparison.trackers])
           for name in comparison.sequences}
  return sorted(means, key=lambda name: (means[name], name))[:count]


def make_clips(comparison: Comparison, sequences: Ordered[Sequence],
               results: Mapping[str, Mapping[str, Result]]) -> dict[str, Clip]:
  """A clip of each sequence, around the moment where the tracker that is worst there first loses the target.

  Args:
    comparison: of these sequences, and others perhaps.
    sequences: with frames.
    results: tracker -> sequence -> result.

  Returns:
    By sequence name.

  Raises:
    UserError: frames that cannot be read.
  """
  looks, clips = styles(comparison), {}
  for sequence in sequences:
    colours = {tracker: looks[tracker].colour for tracker in _shown(comparison, sequence.name)}
    clips[sequence.name] = make(sequence, {tracker: results[tracker][sequence.name] for tracker in colours}, colours,
                                window(comparison, sequence.name))
  return clips


def window(comparison: Comparison, sequence: str) -> range:
  """The frames to show: about the first loss of the tracker that is worst there, else about the lowest overlaps."""
  order = sorted(comparison.trackers, key=lambda tracker: _score(comparison, tracker, sequence))
  firsts = [comparison.failures[tracker][sequence].first for tracker in order]
  losses = [first for first in firsts if first is not None]
  overlap = np.nan_to_num(comparison.overlaps[order[0]][sequence], nan=1.0)
  if losses:
    start = losses[0] - _BEFORE
  else:
    start = int(np.argmin(np.convolve(overlap, np.ones(min(_FRAMES, len(overlap))), "valid")))
  start = max(0, min(start, len(overlap) - _FRAMES))
  return range(start, min(start + _FRAMES, len(overlap)))


def make(sequence: Sequence, results: Mapping[str, Result], colours: Mapping[str, str], frames: range) -> Clip:
  """Draws a clip.

  Args:
    sequence: with frames.
    results: by tracker, on this sequence; later ones are drawn over earlier ones.
    colours: by tracker, "#rrggbb".
    frames: the frames to show.
  """
  assert sequence.frames is not None
  # The truth below all and wider, so that it shows even where a box is right on it.
  boxes = [(sequence.boxes, _rgb(TRUTH_COLOUR), 1)]
  boxes += [(results[name].boxes, _rgb(colours[name]), 0) for name in results]
  centres, side = _camera(sequence, frames)
  images: list[np.ndarray] = []
  tiles: list[np.ndarray] = []
  picks = set(np.linspace(frames[0], frames[-1], _COLUMNS * _ROWS).round().astype(int).tolist())
  for t, centre in zip(frames, centres, strict=True):
    frame = sequence.frames[t]
    here = [(values[t], colour, wider) for values, colour, wider in boxes
            if not np.isnan(values[t]).any() and values[t, 2] > 0]
    text = f"{t}" if sequence.visible[t] else f"{t}  target absent"
    whole, zoomed = _whole(frame, here), _zoomed(frame, centre, side, here)
    video.write_text(whole, text, (255, 255, 255))
    images.append(np.hstack([_fitted(whole, images[0].shape[1] - _SIDE if images else None), zoomed]))
    if t in picks:
      tile = cv2.resize(zoomed, (_TILE_SIDE, _TILE_SIDE), interpolation=cv2.INTER_AREA)
      video.write_text(tile, text, (255, 255, 255))
      tiles.append(tile)
  tiles += [np.zeros_like(tiles[0])] * (_COLUMNS * _ROWS - len(tiles))
  strip = np.vstack([np.hstack(tiles[i:i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)])
  encoded = io.BytesIO()
  imageio.mimwrite(encoded, [*images], format="mp4", fps=_FPS, codec="libx264", macro_block_size=4, quality=None,
                   output_params=_ENCODING)
  return Clip(encoded.getvalue(), _jpeg(images[len(images) // 2]), _jpeg(strip), tuple(results), frames[0], frames[-1])


def _score(comparison: Comparison, tracker: str, sequence: str) -> float:
  return comparison.scores[tracker].metrics["sequences"][sequence][comparison.main]


def _shown(comparison: Comparison, sequence: str) -> list[str]:
  """The trackers to draw: all, or as many of the best as of the worst ones on this sequence; the best last, on top."""
  order = sorted(comparison.trackers, key=lambda tracker: _score(comparison, tracker, sequence))
  half = _MOST_TRACKERS // 2
  return order if len(order) <= _MOST_TRACKERS else order[:half] + order[-half:]


def _camera(sequence: Sequence, frames: range) -> tuple[np.ndarray, float]:
  """Centres [T, 2] of the magnified view, which waits where the target was last seen, and its side in pixels."""
  boxes, visible = sequence.boxes.astype(np.float64), np.flatnonzero(sequence.visible)
  seen = visible[np.maximum(np.searchsorted(visible, frames, side="right") - 1, 0)]
  sizes = np.sqrt(boxes[seen, 2] * boxes[seen, 3])
  return boxes[seen, :2] + boxes[seen, 2:] / 2, max(48.0, 5 * float(np.median(sizes)))


def _whole(frame: np.ndarray, boxes: Ordered[_Drawn]) -> np.ndarray:
  """A frame of any size, made as high or wide as a clip allows, with boxes: RGB uint8."""
  height, width = frame.shape
  zoom = min(_WIDEST / width, _SIDE / height)
  image = cv2.resize(frame, (round(width * zoom), round(height * zoom)),
                     interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
  return _drawn(image, boxes, np.zeros(2), zoom)


def _fitted(image: np.ndarray, width: int | None) -> np.ndarray:
  """Pads (or cuts) to a clip's height and a width; None: its own, a gap, and what makes it a multiple of 4 for x264."""
  width = width or -(-image.shape[1] // 4) * 4 + 4
  image = image[:, :width]
  return cv2.copyMakeBorder(image, 0, _SIDE - len(image), 0, width - image.shape[1], cv2.BORDER_CONSTANT)


def _zoomed(frame: np.ndarray, centre: np.ndarray, side: float, boxes: Ordered[_Drawn]) -> np.ndarray:
  """The square about `centre`, enlarged, with boxes: RGB uint8."""
  corner, zoom = centre - side / 2, _SIDE / side
  # Pixel (i, j) covers [i, i + 1): so do the boxes' coordinates, and so must the enlarged pixels.
  matrix = np.array([[zoom, 0, (0.5 - corner[0]) * zoom - 0.5], [0, zoom, (0.5 - corner[1]) * zoom - 0.5]])
  return _drawn(cv2.warpAffine(frame, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR), boxes, corner, zoom)


def _drawn(image: np.ndarray, boxes: Ordered[_Drawn], corner: np.ndarray, zoom: float) -> np.ndarray:
  """The image [H, W] in RGB with boxes, which are in pixels of `zoom` of its own from `corner` on."""
  image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
  for box, colour, wider in boxes:
    near = np.clip(box[:2] - corner, -_FAR, _FAR)
    box = np.concatenate([near, np.clip(box[2:], 0, 2 * _FAR)])
    video.draw_box(image, box, zoom, colour, 1 + (zoom > 2) + wider)
  return image


def _jpeg(image: np.ndarray) -> bytes:
  return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()


def _rgb(colour: str) -> tuple[int, int, int]:
  red, green, blue = bytes.fromhex(colour[1:])
  return red, green, blue
