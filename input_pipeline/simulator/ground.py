"""What lies on the ground: texture, fields, roads, water, and many small warm and cold things."""

import cv2
import numpy as np

from input_pipeline.simulator.noise import fractal_noise


def draw_ground(rng: np.random.Generator, radiance: np.ndarray, horizon: int, unit: float, level: float,
                busy: bool) -> None:
  """Fills the panorama below the horizon, in place.

  Args:
    rng: of this sequence's scene.
    radiance: float32 [PH, PW].
    horizon: its row, also above the panorama: then the camera looks down.
    unit: width of the view / 640.
    level: mean grey level.
    busy: whether to draw much on it.
  """
  rows, columns = radiance.shape
  top = max(horizon, 0)
  depth = ((np.arange(top, rows, dtype=np.float32) - horizon) / max(rows - horizon, 1))[:, None]
  far = fractal_noise(rng, rows - top, columns, 7 * unit, 2, 0.7, 6.0)
  near = fractal_noise(rng, rows - top, columns, 45 * unit, 5, 0.75, rng.uniform(1.0, 3.0))
  strength = np.float32(rng.uniform(6, 35) if busy else rng.uniform(3, 18))
  shape = rows - top, columns
  land = np.repeat(np.float32(level) + np.float32(rng.uniform(-45, 45)) * depth, columns, axis=1)
  if rng.random() < (0.5 if busy else 0.3):
    land += _fields(rng, shape, unit)
  if rng.random() < (0.4 if busy else 0.15):
    land += np.float32(rng.uniform(5, 25)) * fractal_noise(rng, *shape, 4 * unit, 2, 0.9, rng.uniform(1, 8))
  if rng.random() < (0.5 if busy else 0.2):
    _roads(rng, land, unit)
  if rng.random() < (0.9 if busy else 0.35):
    _things(rng, land, depth, unit, level)
  land += strength * ((1 - depth) * far + depth * near)
  radiance[top:] = land


def _fields(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> np.ndarray:
  """Patches with sharp borders, each with a grey level of its own, float32 `shape`."""
  kinds = rng.normal(0, 20, 9).astype(np.float32)
  scale, stretch = unit * rng.uniform(50, 160), rng.uniform(1.5, 4)
  first, second = (np.clip(1.2 * fractal_noise(rng, *shape, scale, 3, 0.5, stretch) + 1.5, 0, 2).astype(np.int32)
                   for _ in range(2))  # Two, so that patches do not nest like contour lines.
  return kinds[3 * first + second]


def _roads(rng: np.random.Generator, land: np.ndarray, unit: float) -> None:
  """Bent stripes that are warmer or colder than the land, drawn in place."""
  rows, columns = land.shape
  for _ in range(int(rng.integers(1, 5))):
    x = np.linspace(-0.1, 1.1, 12) * columns
    y = rows * (rng.uniform(-0.1, 1.1) + rng.normal(0, 0.4) * (x / columns - 0.5)) + np.cumsum(rng.normal(0, 9, 12))
    points = np.round(np.stack([x, y], 1) * 16).astype(np.int32)
    level = float(land.mean() + rng.choice([-1, 1]) * rng.uniform(15, 70))
    cv2.polylines(land, [points], False, level, max(round(unit * rng.exponential(4)), 1), cv2.LINE_8, 4)


def _things(rng: np.random.Generator, land: np.ndarray, depth: np.ndarray, unit: float, level: float) -> None:
  """Bushes, stones, cars, lamps: spots of the sizes that targets have, drawn in place."""
  rows, columns = land.shape
  count = int(10 ** rng.uniform(1.0, 2.7))
  typical = unit * rng.uniform(2.5, 13)
  warm = rng.uniform(0.2, 0.9)
  rest = rng.uniform(8, 45)
  for _ in range(count):
    x, y = rng.uniform(0, columns), rng.uniform(0, rows)
    size = typical * np.exp(rng.normal(0, 0.5)) * (0.4 + 0.9 * float(depth[min(int(y), rows - 1), 0]))
    contrast = (1 if rng.random() < warm else -1) * rest * rng.exponential(1.0)
    axes = size * rng.uniform(0.4, 1.2), size * rng.uniform(0.3, 0.8)
    centre = round(x * 16), round(y * 16)
    value = float(level + contrast)
    cv2.ellipse(land, centre, tuple(max(round(a * 8), 8) for a in axes), float(rng.normal(0, 20)), 0, 360, value, -1,
                cv2.LINE_8, 4)
