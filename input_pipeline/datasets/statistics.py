"""What the boxes of a data set are like: sizes, motion, absences, beside what Anti-UAV410's test split has."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from input_pipeline.sequences import Sequence

ATTRIBUTES = ("TC", "OV", "SV", "FM", "OC", "DBC", "TS", "SS", "MS", "NS")
_WINDOWS, _FAR_WINDOWS = (4, 5, 6, 8), (4, 6, 8)
_CONTRAST_FRAMES = 20  # Per sequence, evenly spread.
CONTRAST = "contrast/deviation, percentiles 5/25/50/75/95"

# Anti-UAV410, test split (120 sequences, 640x512), measured from its annotations.
REFERENCE: Mapping[str, tuple[float, ...]] = MappingProxyType({
    "absent %": (2.05,),
    "sqrt(wh) px, percentiles 1/5/25/50/75/95/99": (6.9, 8.5, 14.1, 31.8, 39.2, 56.5, 68.8),
    "w/h, percentiles 5/50/95": (0.94, 1.38, 2.88),
    "centre motion px/frame, percentiles 50/95/99": (2.6, 17.5, 32.5),
    "motion / sqrt(wh), percentiles 50/95/99": (0.11, 0.60, 1.15),
    "max/min size in a sequence, percentiles 50/95": (1.7, 5.3),
    "absence gaps per 100 sequences": (100 * 91 / 120,),
    "length of a gap in frames, percentiles 50/95": (12, 124),
    "centre leaves a 4x/5x/6x/8x window between two frames, %": (0.45, 0.30, 0.21, 0.14),
    "reappears outside a 4x/6x/8x window, %": (35, 29, 24),
    "sequences with " + "/".join(ATTRIBUTES) + ", %": tuple(
        100 * count / 120 for count in (81, 31, 27, 52, 12, 21, 33, 87, 84, 32)),
})


def measure(sequences: Iterable[Sequence]) -> dict[str, tuple[float, ...]]:
  """The rows of `REFERENCE`, measured on other sequences.

  Sizes are sqrt(wh) and motion is that of the centre, both in pixels of the sequence's own frames. All frames (or pairs
  of neighbouring frames with the target in both) are pooled. The motion is divided by the size in the earlier frame. A
  kx window is a square with k times that size as its side about the earlier centre; after a gap, about the last
  centre seen. A gap is a run of absent frames, also at a sequence's end or start; one that reappears has the target on
  both sides. Our choice where FIELD.md leaves it open; the numbers of `REFERENCE` fit to one another under it.

  Args:
    sequences: with or without frames.

  Returns:
    The rows by name, each with as many numbers as in `REFERENCE`; NaN where there is nothing to measure.
  """
  sequences = list(sequences)
  boxes = np.concatenate([s.boxes[s.visible] for s in sequences]).astype(np.float64)
  steps = [_steps(sequence) for sequence in sequences]
  near, far = (np.concatenate(parts) for parts in ([s.near for s in steps], [s.far for s in steps]))
  gaps = [length for s in steps for length in s.gaps]
  sizes = [_sizes(s.boxes[s.visible]) for s in sequences if s.visible.any()]
  ratios = [of_one.max() / of_one.min() for of_one in sizes]
  motion = np.hypot(near[:, 0], near[:, 1])
  frames = sum(len(sequence) for sequence in sequences)
  named = [sequence.attributes for sequence in sequences if sequence.attributes]
  values = [
      (100 * (1 - len(boxes) / frames),),
      _percentiles(_sizes(boxes), (1, 5, 25, 50, 75, 95, 99)),
      _percentiles(boxes[:, 2] / boxes[:, 3], (5, 50, 95)),
      _percentiles(motion, (50, 95, 99)),
      _percentiles(motion / near[:, 2], (50, 95, 99)),
      _percentiles(ratios, (50, 95)),
      (100 * len(gaps) / len(sequences),),
      _percentiles(gaps, (50, 95)),
      _outside(near, _WINDOWS),
      _outside(far, _FAR_WINDOWS),
      tuple(100 * _mean([name in names for names in named]) for name in ATTRIBUTES),
  ]
  return dict(zip(REFERENCE, values, strict=True))


def measure_contrast(sequences: Iterable[Sequence]) -> tuple[float, ...]:
  """Percentiles of how far targets stand out, the row `CONTRAST`: a lower bound where boxes are loose.

  |mean inside the box - mean of the ring| / deviation of the ring (at least half a grey level); the ring is the box
  enlarged twice less the box. Up to 20 visible frames per sequence. Our choice of definition.

  Args:
    sequences: with frames.
  """
  found = []
  for sequence in sequences:
    assert sequence.frames is not None
    seen = np.flatnonzero(sequence.visible)
    for t in seen[np.unique(np.linspace(0, len(seen) - 1, _CONTRAST_FRAMES).astype(int))] if len(seen) else ():
      found.append(_contrast(sequence.frames[int(t)], sequence.boxes[t]))
  return _percentiles([value for value in found if value is not None], (5, 25, 50, 75, 95))


def table(values: Mapping[str, tuple[float, ...]]) -> list[str]:
  """Lines of a Markdown table: each row of `values` beside that of `REFERENCE`, "-" where there is nothing."""
  lines = ["| | this data set | Anti-UAV410 test |", "| --- | --- | --- |"]
  for name, row in values.items():
    lines.append(f"| {name} | {_text(row)} | {_text(REFERENCE.get(name, (np.nan,)))} |")
  return lines


def _text(row: tuple[float, ...]) -> str:
  return "-" if np.isnan(row).all() else " / ".join(f"{value:.3g}" for value in row)


def _sizes(boxes: np.ndarray) -> np.ndarray:
  boxes = np.asarray(boxes, np.float64)
  return np.sqrt(boxes[:, 2] * boxes[:, 3])


def _percentiles(values: ArrayLike, at: tuple[float, ...]) -> tuple[float, ...]:
  values = np.asarray(values)
  return tuple(float(v) for v in np.percentile(values, at)) if len(values) else (np.nan,) * len(at)


def _mean(values: list[bool] | np.ndarray) -> float:
  return float(np.mean(values)) if len(values) else np.nan


class _Steps(NamedTuple):
  """How the target of one sequence moves.

  Attributes:
    near: float64 [N, 3] (dx, dy, earlier size), the steps between neighbouring visible frames.
    far: the same over gaps.
    gaps: the lengths of all gaps in frames, those at the ends too.
  """

  near: np.ndarray
  far: np.ndarray
  gaps: list[int]


def _steps(sequence: Sequence) -> _Steps:
  """Those between the visible frames of a sequence."""
  seen = np.flatnonzero(sequence.visible)
  boxes = sequence.boxes[seen].astype(np.float64)
  moved = np.diff(boxes[:, :2] + boxes[:, 2:] / 2, axis=0)
  steps = np.concatenate([moved, _sizes(boxes)[:-1, None]], axis=1)
  apart = np.diff(seen)
  ends = np.concatenate([[-1], seen, [len(sequence)]])
  lengths = np.diff(ends) - 1
  return _Steps(steps[apart == 1], steps[apart > 1], lengths[lengths > 0].tolist())


def _outside(steps: np.ndarray, windows: tuple[int, ...]) -> tuple[float, ...]:
  """Per cent of `steps` [N, 3] that end outside the window, one number per window."""
  reach = np.abs(steps[:, :2]).max(axis=1) / steps[:, 2]
  return tuple(100 * _mean(reach > k / 2) for k in windows)


def _contrast(frame: np.ndarray, box: np.ndarray) -> float | None:
  """The number of `measure_contrast` for one frame; None where the box or its ring has no pixels."""
  x, y, w, h = (float(v) for v in box)
  height, width = frame.shape
  inner = [round(max(x, 0)), round(max(y, 0)), round(min(x + w, width)), round(min(y + h, height))]
  outer = [round(max(x - w / 2, 0)), round(max(y - h / 2, 0)), round(min(x + 1.5 * w, width)),
           round(min(y + 1.5 * h, height))]
  ring = np.zeros(frame.shape, bool)
  ring[outer[1]:outer[3], outer[0]:outer[2]] = True
  ring[inner[1]:inner[3], inner[0]:inner[2]] = False
  target = frame[inner[1]:inner[3], inner[0]:inner[2]]
  if not target.size or not ring.any():
    return None
  around = frame[ring].astype(np.float64)
  return abs(float(target.mean()) - around.mean()) / max(around.std(), 0.5)
