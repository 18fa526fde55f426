"""Man-made things in the scene: buildings, lattice masts, wires. All drawn into a float32 panorama in place."""

import cv2
import numpy as np


def draw_building(rng: np.random.Generator, radiance: np.ndarray, foot: float, unit: float) -> None:
  """A building somewhere that stands on the row `foot`."""
  rows, columns = radiance.shape
  width, height = unit * rng.uniform(30, 160), unit * rng.uniform(20, 180)
  left = int(rng.uniform(-0.2 * width, columns - 0.3 * width))
  foot = int(min(foot, rows))
  paint_facade(rng, radiance, left, int(foot - height), int(left + width), foot, unit)


def paint_facade(rng: np.random.Generator, radiance: np.ndarray, left: int, top: int, right: int, foot: int,
                 unit: float) -> None:
  """A facade with rows of windows and a roof edge, over the given pixels (`right` and `foot` exclusive)."""
  rows, columns = radiance.shape
  left, right, top, foot = max(left, 0), min(right, columns), max(top, 0), min(foot, rows)
  if right - left < 2 or foot - top < 2:
    return
  level = rng.uniform(40, 215)
  radiance[top:foot, left:right] = level + np.linspace(0, rng.uniform(-25, 25), foot - top, dtype=np.float32)[:, None]
  pitch_x, pitch_y = (max(int(unit * rng.uniform(9, 26)), 3) for _ in range(2))
  contrast = rng.uniform(10, 55) * rng.choice([-1, 1])
  if rng.random() < 0.85:
    x = np.arange(right - left) % pitch_x
    y = np.arange(foot - top) % pitch_y
    window = (y[:, None] >= pitch_y // 2) & (x[None] >= pitch_x // 2) if rng.random() < 0.7 else (
        (y[:, None] >= pitch_y // 2) & np.ones(right - left, bool))
    cells = rng.uniform(0.3, 1.3, ((foot - top) // pitch_y + 1, (right - left) // pitch_x + 1)).astype(np.float32)
    cells = np.repeat(np.repeat(cells, pitch_y, 0), pitch_x, 1)[:foot - top, :right - left]
    radiance[top:foot, left:right] += np.where(window, np.float32(contrast) * cells, 0)
  edge = max(round(2 * unit), 1)
  radiance[top:top + edge, left:right] += rng.uniform(-35, 45)


def draw_mast(rng: np.random.Generator, radiance: np.ndarray, foot: float, unit: float) -> None:
  """On the row `foot`, a lattice mast with platforms and warm electronics, as seen in Anti-UAV's clips."""
  rows, columns = radiance.shape
  foot = min(foot + 10 * unit, rows)
  top = foot - unit * rng.uniform(120, 420)
  middle, half_foot, half_top = rng.uniform(0, columns), unit * rng.uniform(8, 22), unit * rng.uniform(3, 7)
  level, thickness = rng.uniform(90, 235), max(round(unit * rng.uniform(1, 2.4)), 1)

  def line(x0: float, y0: float, x1: float, y1: float, value: float = level, width: int = thickness) -> None:
    a, b = (round(x0 * 16), round(y0 * 16)), (round(x1 * 16), round(y1 * 16))
    cv2.line(radiance, a, b, value, width, cv2.LINE_8, 4)

  def half(y: float) -> float:
    return half_top + (half_foot - half_top) * (y - top) / (foot - top)

  for side in (-1, 1):
    line(middle + side * half_foot, foot, middle + side * half_top, top)
  y, step = foot, 2.2 * half_foot
  while y - step > top:
    a, b = half(y), half(y - step)
    line(middle - a, y, middle + b, y - step)
    line(middle + a, y, middle - b, y - step)
    line(middle - b, y - step, middle + b, y - step)
    y, step = y - step, max(2.2 * b, 6 * unit)
  for _ in range(int(rng.integers(0, 4))):
    y = top + rng.uniform(0, 0.4) * (foot - top)
    reach = half(y) + unit * rng.uniform(4, 14)
    line(middle - reach, y, middle + reach, y, level, thickness * 2)
    for x in rng.uniform(-reach, reach, 3):
      hot = min(level + rng.uniform(0, 60), 250)
      line(middle + x, y - unit * rng.uniform(4, 12), middle + x, y, hot, thickness * 3)
  line(middle, top, middle, top - unit * rng.uniform(5, 40), level, 1)


def draw_wires(rng: np.random.Generator, radiance: np.ndarray, horizon: int, unit: float) -> None:
  """A few hanging wires across the whole panorama."""
  columns = radiance.shape[1]
  x = np.linspace(0, columns, 40)
  y = horizon - unit * rng.uniform(30, 260) + unit * rng.uniform(5, 60) * ((x / columns - 0.5) * 2) ** 2
  level = rng.uniform(50, 220)
  for k in range(int(rng.integers(1, 5))):
    points = np.stack([x, y + k * unit * rng.uniform(5, 15) + x * rng.normal(0, 0.02)], 1)
    cv2.polylines(radiance, [np.round(points * 16).astype(np.int32)], False, level, 1, cv2.LINE_8, 4)


def draw_branches(rng: np.random.Generator, radiance: np.ndarray, horizon: int, unit: float) -> None:
  """One to three bare trees or bushes that stand in front of everything, warm or cold."""
  rows, columns = radiance.shape
  for _ in range(int(rng.integers(1, 4))):
    level = float(rng.uniform(20, 240))
    foot = np.array([rng.uniform(0, columns), max(horizon, rows * rng.uniform(0.6, 1.1))])
    _branch(rng, radiance, foot, -np.pi / 2 + rng.normal(0, 0.15), unit * rng.uniform(40, 130),
            unit * rng.uniform(3, 7), level, 7)


def _branch(rng: np.random.Generator, radiance: np.ndarray, start: np.ndarray, angle: float, length: float,
            thickness: float, level: float, generations: int) -> None:
  end = start + length * np.array([np.cos(angle), np.sin(angle)])
  a, b = (tuple(round(v * 16) for v in point) for point in (start, end))
  cv2.line(radiance, a, b, level, max(round(thickness), 1), cv2.LINE_8, 4)
  if generations > 0:
    for side in (-1, 1):
      _branch(rng, radiance, end, angle + side * rng.uniform(0.15, 0.6), length * rng.uniform(0.6, 0.9),
              thickness * 0.65, level, generations - 1)
