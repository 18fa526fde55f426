"""Marks and text that surveillance cameras burn into their frames."""

import cv2
import numpy as np


def draw_overlay(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.uint8]:
  """Crosshair, corner marks and a line of digits: (mask bool [H, W], one grey level)."""
  marks = np.zeros((height, width), np.uint8)
  middle = np.array([width // 2, height // 2])
  reach = np.array([width, height]) * rng.uniform(0.2, 0.35)
  if rng.random() < 0.7:  # A cross with an open middle.
    for axis in (0, 1):
      for side in (-1, 1):
        a, b = middle.astype(float), middle.astype(float)
        a[axis] += side * reach[axis] * 0.5
        b[axis] += side * reach[axis]
        cv2.line(marks, tuple(int(v) for v in a), tuple(int(v) for v in b), 255, 1)
  if rng.random() < 0.6:
    for sx in (-1, 1):
      for sy in (-1, 1):
        corner = (middle + reach * [sx, sy]).astype(int)
        inner = (corner - reach * [sx, sy] * 0.35).astype(int)
        cv2.line(marks, tuple(map(int, corner)), (int(inner[0]), int(corner[1])), 255, 1)
        cv2.line(marks, tuple(map(int, corner)), (int(corner[0]), int(inner[1])), 255, 1)
  if rng.random() < 0.7:
    text = f"{rng.integers(360):03d}.{rng.integers(100):02d}  {rng.integers(24):02d}:{rng.integers(60):02d}"
    scale = 0.5 * max(width / 640, 0.6)
    cv2.putText(marks, text, (8, int(10 + 22 * scale)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1)
  mask = marks > 0
  return mask, np.uint8(rng.choice([0, 255], p=[0.3, 0.7]))
