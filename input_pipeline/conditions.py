"""A sequence as another camera might have shown it: other polarity, gain, sharpness, noise, resolution (our choice).

For measuring how robust a tracker is (`siamdff_jax.experiments.robustness`); what a training sees of such things is
`siamdff_jax.feeding.augment`. What becomes of a frame depends on the frame and its number alone.
"""

import dataclasses
import math
from collections.abc import Callable
from collections.abc import Sequence as Names
from typing import NamedTuple

import cv2
import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.frames import ChangedFrames
from input_pipeline.sequences import FrameShape, Sequence

_NOISE_SEED, _STRIPES_SEED = 1, 2
_DRIFT_FRAMES = 100  # One period of the gain's drift.


class Condition(NamedTuple):
  """Attributes:

    change: (frame uint8 [H, W], its number) -> uint8 [H', W'].
    scale: pixels of the changed frame per pixel.
  """

  change: Callable[[np.ndarray, int], np.ndarray]
  scale: float = 1.0


def under(sequence: Sequence, condition: Condition) -> Sequence:
  """The sequence with changed frames, and its labels in their pixels."""
  scale = condition.scale
  lookalikes = sequence.lookalikes * np.array([1, *[scale] * 4], np.float32)
  return dataclasses.replace(
      sequence, frames=ChangedFrames(sequence.frames, condition.change), boxes=sequence.boxes * np.float32(scale),
      shape=sequence.shape and _scaled(sequence.shape, scale), lookalikes=lookalikes)


def _scaled(shape: FrameShape, scale: float) -> FrameShape:
  return FrameShape(math.ceil(shape.rows * scale), math.ceil(shape.columns * scale))


def _pointwise(curve: Callable[[np.ndarray], np.ndarray]) -> Condition:
  """Every grey level by itself; `curve` is of levels 0..255 in floats."""
  table = _levels(curve(np.arange(256.0)))
  return Condition(lambda frame, t: table[frame])


def _levels(image: np.ndarray) -> np.ndarray:
  return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _gain_drift(frame, t):
  swing = np.sin(2 * np.pi * t / _DRIFT_FRAMES)
  return _levels((frame - 128.0) * np.exp(0.5 * swing) + 128 + 40 * swing)


def _stretched(frame, t):
  del t
  low, high = np.percentile(frame, (0.5, 99.5))
  return _levels((frame - low) * (255 / max(high - low, 1)))


def _equalized(frame, t):
  del t
  return cv2.createCLAHE(clipLimit=4, tileGridSize=(8, 8)).apply(frame)


def _noise(frame, t):
  return _levels(frame + np.random.default_rng([_NOISE_SEED, t]).normal(0, 10, frame.shape))


def _stripes(frame, t):
  del t
  return _levels(frame + np.random.default_rng(_STRIPES_SEED).normal(0, 6, frame.shape[1]))


def _blur(frame, t):
  del t
  return cv2.GaussianBlur(frame, (0, 0), 1.5)


def _half(frame, t):
  del t
  rows, columns = frame.shape
  even = cv2.copyMakeBorder(frame, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)  # Or the scale were not 1/2.
  return cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _double(frame, t):
  del t
  return cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def _compressed(frame, t):
  del t
  return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_GRAYSCALE)


AS_RECORDED = "as_recorded"
CONDITIONS = {
    AS_RECORDED: Condition(lambda frame, t: frame),
    "inverted": _pointwise(lambda levels: 255 - levels),  # Black-hot instead of white-hot.
    "low_gain": _pointwise(lambda levels: 0.3 * (levels - 128) + 128),
    "dark": _pointwise(lambda levels: 0.35 * levels),
    "gamma_0.5": _pointwise(lambda levels: 255 * (levels / 255) ** 0.5),
    "gamma_2": _pointwise(lambda levels: 255 * (levels / 255) ** 2),
    "gain_drift": Condition(_gain_drift),  # By 1.6 up and down and by 40 levels, within 100 frames.
    "stretched": Condition(_stretched),  # Gain control frame by frame: the 0.5 and 99.5 percentiles to 0 and 255.
    "equalized": Condition(_equalized),  # Contrast-limited adaptive histogram equalisation, limit 4, 8x8 tiles.
    "noise": Condition(_noise),  # Gaussian, 10 levels.
    "stripes": Condition(_stripes),  # Of columns, always the same, 6 levels.
    "blur": Condition(_blur),  # Gaussian, 1.5 pixels.
    "compressed": Condition(_compressed),  # JPEG of quality 20.
    "half_size": Condition(_half, 0.5),
    "double_size": Condition(_double, 2.0),
}


def chosen(names: Names[str]) -> dict[str, Condition]:
  """As recorded and the named conditions, or all of them where none is named, in the order of `CONDITIONS`.

  Raises:
    UserError: an unknown name.
  """
  unknown = [name for name in names if name not in CONDITIONS]
  if unknown:
    raise UserError(f"--conditions: {unknown[0]!r}, expected some of {', '.join(CONDITIONS)}")
  return {name: CONDITIONS[name] for name in CONDITIONS if name in (AS_RECORDED, *(names or CONDITIONS))}
