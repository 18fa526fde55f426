"""Smooth random fields, built at low resolution and enlarged."""

import cv2
import numpy as np


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, scale: float, octaves: int = 4, gain: float = 0.5,
    stretch: float = 1.0) -> np.ndarray:
  """A sum of octaves of smooth noise with mean about 0 and standard deviation 1, float32 [height, width].

  Args:
    rng: random generator.
    height, width: of the field in pixels.
    scale: period of the coarsest octave in pixels (vertically).
    octaves: how many, each with half the period of the one before; stops at two pixels.
    gain: amplitude of an octave relative to the one before.
    stretch: horizontal period / vertical period.
  """
  field = np.zeros((height, width), np.float32)
  amplitude, power = 1.0, 0.0
  for _ in range(octaves):
    rows, columns = max(int(np.ceil(height / scale)), 1) + 3, max(int(np.ceil(width / (scale * stretch))), 1) + 3
    rows, columns = min(rows, height), min(columns, width)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    field += np.float32(amplitude) * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    power += amplitude**2
    amplitude, scale = amplitude * gain, scale / 2
    if scale < 2:
      break
  return field / np.float32(np.sqrt(power) * 0.75)  # Cubic enlargement keeps about 3/4 of the deviation.


def ridge_line(rng: np.random.Generator, width: int, scale: float, octaves: int = 5, gain: float = 0.5) -> np.ndarray:
  """A one-dimensional profile like a ridge or tree tops, float32 [width], mean about 0, deviation 1."""
  return fractal_noise(rng, 8, width, scale, octaves, gain)[4]


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
  """0 below `low`, 1 above `high`, smooth between; same shape and dtype as `values`."""
  x = np.clip((values - low) / (high - low), 0, 1)
  return x * x * (3 - 2 * x)
