"""Draws from the measured statistics of Anti-UAV410's annotations (438,397 frames at 640x512).

The numbers are percentiles of the training split; between them the logarithm is interpolated, and the outermost
values (0 and 100 %) are our choice. All lengths are pixels of a 640-pixel-wide frame; callers scale by width / 640.
"""

from statistics import NormalDist

import numpy as np

REFERENCE_WIDTH = 640
SIZE_PERCENTILES = {0: 6.0, 1: 6.5, 5: 8.0, 25: 16.6, 50: 30.6, 75: 41.3, 95: 56.8, 99: 78.8, 100: 90.0}  # sqrt(wh)
ASPECT_PERCENTILES = {0: 0.88, 5: 1.0, 50: 1.45, 95: 3.0, 100: 3.4}  # w/h

# Motion / sqrt(wh) per frame has 50/95/99 percentiles .10/.72/1.92 (train), .11/.60/1.15 (test): a log-normal with
# this median and spread lies between. How it divides into "between sequences" and "within one" is our choice.
MOTION_MEDIAN = 0.10
MOTION_SPREAD_BETWEEN = 0.8
MOTION_SPREAD_WITHIN = 0.85

# max/min size in a sequence: 1.7 median, 4.7 at 95 %. Its logarithm is taken as log-normal.
_LOG_SIZE_RANGE_MEDIAN, _LOG_SIZE_RANGE_SPREAD = np.log(1.7), 0.65

# Absence gaps: 114 of them in the 200 training sequences, length median 14-17 and 95 % 124-218 frames.
ABSENT_SHARE = 0.023
_GAP_MEDIAN, _GAP_SPREAD = 14.0, 1.4
_NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 200) for i in range(200)])


def _from_percentiles(table: dict[int, float], u: float) -> float:
  return float(np.exp(np.interp(u * 100.0, list(table), np.log(list(table.values())))))


def draw_size(rng: np.random.Generator) -> float:
  """A target's typical sqrt(wh) in a sequence, in pixels of a 640-wide frame."""
  return _from_percentiles(SIZE_PERCENTILES, rng.random())


def draw_aspect(rng: np.random.Generator) -> float:
  """A target's typical w/h in a sequence."""
  return _from_percentiles(ASPECT_PERCENTILES, rng.random())


def draw_log_size_range(rng: np.random.Generator, num_frames: int) -> float:
  """log(max size / min size) over a sequence; smaller for sequences below 50 frames (our choice)."""
  value = _LOG_SIZE_RANGE_MEDIAN * np.exp(_LOG_SIZE_RANGE_SPREAD * rng.standard_normal())
  return float(min(value, np.log(8.0)) * min(1.0, num_frames / 50.0))


def draw_motion_ratios(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """|centre motion| / sqrt(wh) for each frame after the first, float64 [num_frames - 1]."""
  log_ratio = np.empty(max(num_frames - 1, 0))
  level = np.log(MOTION_MEDIAN) + MOTION_SPREAD_BETWEEN * rng.standard_normal()
  memory = 0.7  # Fast frames come in bursts (our choice).
  state = rng.standard_normal()
  for t, innovation in enumerate(rng.standard_normal(len(log_ratio))):
    log_ratio[t] = level + MOTION_SPREAD_WITHIN * state
    state = memory * state + np.sqrt(1 - memory**2) * innovation
  return np.minimum(np.exp(log_ratio), 4.0)


def draw_gap_lengths(rng: np.random.Generator, num_frames: int) -> list[int]:
  """Lengths in frames of a sequence's absences, often none.

  A short sequence cannot hold the long gaps; it gets more of the short ones, so that the expected share of absent
  frames stays the measured one.
  """
  longest = num_frames // 3
  if longest < 2:
    return []
  expected = np.clip(_GAP_MEDIAN * np.exp(_GAP_SPREAD * _NORMAL_QUANTILES), 1, longest).mean()
  count = rng.poisson(ABSENT_SHARE * num_frames / expected)
  lengths = np.clip(_GAP_MEDIAN * np.exp(_GAP_SPREAD * rng.standard_normal(count)), 1, longest)
  return [round(length) for length in lengths]
