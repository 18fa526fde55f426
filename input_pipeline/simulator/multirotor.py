"""A multirotor as a handful of ellipsoids and bars in space, projected to polygons."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False)),
                    np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False))], axis=1)


@dataclasses.dataclass(frozen=True)
class Multirotor:
  """Parts in model coordinates: z up, arms about 1 long.

  Attributes:
    bars: [S, 2, 3] end points of arms and legs; bar_widths: [S].
    blobs: [K, 3] centres of the ellipsoids of revolution; blob_radii: [K, 2] horizontal and vertical semi-axes.
    bar_paints, blob_paints: (opacity, heat) rows. Rotor discs are flat, half-transparent blobs.
  """

  bars: np.ndarray
  bar_widths: np.ndarray
  bar_paints: np.ndarray
  blobs: np.ndarray
  blob_radii: np.ndarray
  blob_paints: np.ndarray
  num_discs: int  # The first blobs are the rotor discs, drawn below everything else.


def draw_multirotor(rng: np.random.Generator, polarity: float) -> Multirotor:
  """Draws a model with 4, 6 or 8 rotors.

  Args:
    rng: of this sequence's target.
    polarity: +1 for a target warmer than its background, -1 for a colder one, which may still have warm motors.
  """
  count = int(rng.choice([4, 6, 8], p=[0.75, 0.15, 0.1]))
  angles = 2 * np.pi * (np.arange(count) + 0.5) / count
  rise = rng.uniform(0.0, 0.18)
  tips = np.stack([np.cos(angles), np.sin(angles), np.full(count, rise)], axis=1)
  body, thick = rng.uniform(0.28, 0.5), rng.uniform(0.12, 0.24)
  shell, plastic = polarity * rng.uniform(0.8, 1.2), polarity * rng.uniform(0.4, 0.9)
  hot = rng.uniform(1.0, 1.6) * (1.0 if polarity > 0 or rng.random() < 0.5 else -0.5)
  disc_radius = rng.uniform(0.28, 0.45) * min(1.0, 6 / count)
  flat = np.full(count, 0.03)
  blobs: list[ArrayLike] = [tips + [0, 0, 0.1], [[0, 0, 0]], [[0, 0, thick * 0.7]], tips + [0, 0, 0.04]]
  radii: list[ArrayLike] = [np.stack([np.full(count, disc_radius), flat], 1), [[body, thick]],
                            [[body * 0.55, thick * 0.5]], np.tile([0.06, 0.08], (count, 1))]
  paints: list[ArrayLike] = [np.tile([rng.uniform(0.5, 0.8), plastic * 0.7], (count, 1)), [[1, shell]], [[1, hot]],
                             np.tile([1, hot], (count, 1))]
  if rng.random() < 0.6:  # A camera below the body.
    blobs.append([[body * 0.5, 0, -thick * 1.3]])
    radii.append([[0.12, 0.13]])
    paints.append([[1, rng.uniform(0.6, 1.5) * polarity]])
  bars = [np.stack([np.zeros((count, 3)), tips], axis=1)]
  widths, bar_paints = [np.full(count, rng.uniform(0.07, 0.13))], [np.tile([1, plastic], (count, 1))]
  if rng.random() < 0.6:  # Landing gear: two skids on legs.
    drop, reach = -rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.5)
    for side in (-1, 1):
      bars.append(np.array([[[0, side * 0.1, 0], [0, side * reach, drop]],
                            [[-0.3, side * reach, drop], [0.3, side * reach, drop]]]))
      widths.append(np.full(2, 0.06))
      bar_paints.append(np.tile([1, plastic], (2, 1)))
  return Multirotor(np.concatenate(bars), np.concatenate(widths), np.concatenate(bar_paints), np.concatenate(blobs),
                    np.concatenate(radii), np.concatenate(paints), count)


def view_elevation(aspect: float) -> float:
  """From how far below (or above) a multirotor has to be seen to be `aspect` times as wide as high, in radians.

  A disc of radius 1 with height 0.3 looks 1 / (sin e + 0.3 cos e) times as wide as high (our choice of model).
  """
  angles = np.linspace(0, np.arctan(1 / 0.3), 91)  # Beyond it the ratio rises again.
  return float(np.interp(-aspect, -1 / (np.sin(angles) + 0.3 * np.cos(angles)), angles))


def project(model: Multirotor, yaw: float, elevation: float, roll: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Orthographic silhouette of a model.

  Args:
    model: the multirotor.
    yaw: rotation about the vertical, radians.
    elevation: of the line of sight against the horizontal, radians.
    roll: rotation in the image plane, radians.

  Returns:
    (polygons, paints) for `raster.render_polygons`, y pointing down.
  """
  blobs = _project_points(model.blobs, yaw, elevation)
  ends = _project_points(model.bars.reshape(-1, 3), yaw, elevation).reshape(-1, 2, 2)
  tall = np.hypot(model.blob_radii[:, 0] * np.sin(elevation), model.blob_radii[:, 1] * np.cos(elevation))
  outlines = blobs[:, None] + _CIRCLE * np.stack([model.blob_radii[:, 0], tall], axis=1)[:, None]
  along = ends[:, 1] - ends[:, 0]
  across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
  half = across * model.bar_widths[:, None] / 2
  bars = np.stack([ends[:, 0] + half, ends[:, 1] + half, ends[:, 1] - half, ends[:, 0] - half], axis=1)
  turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
  outlines, bars = outlines @ turn, bars @ turn
  first = model.num_discs
  polygons = [*outlines[:first], *bars, *outlines[first:]]
  return polygons, [*model.blob_paints[:first], *model.bar_paints, *model.blob_paints[first:]]


def _project_points(points: np.ndarray, yaw: float, elevation: float) -> np.ndarray:
  x = points[:, 0] * np.cos(yaw) - points[:, 1] * np.sin(yaw)
  depth = points[:, 0] * np.sin(yaw) + points[:, 1] * np.cos(yaw)
  return np.stack([x, -points[:, 2] * np.cos(elevation) - depth * np.sin(elevation)], axis=1)
