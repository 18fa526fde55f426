"""The world that the camera looks at: one panorama per sequence, larger than the view."""

import dataclasses

import numpy as np

from input_pipeline.simulator import ground, structures
from input_pipeline.simulator.noise import fractal_noise, ridge_line, smoothstep


@dataclasses.dataclass
class Scene:
  """A panorama in grey levels before the sensor's gain.

  Attributes:
    radiance: float32 [PH, PW], roughly 0..255.
    occluders: float32 [PH, PW], how opaque the occluders in front of the target are, 0..1.
    horizon: row of the horizon; beyond the panorama's last row when only sky is to be seen.
    unit: width of the view / 640: the scale of everything that has a size.
  """

  radiance: np.ndarray
  occluders: np.ndarray
  horizon: int
  unit: float


def build_scene(rng: np.random.Generator, view_width: int, columns: int, rows: int) -> Scene:
  """Draws a sky with clouds and, mostly, a horizon with hills, trees, buildings, masts and ground below it.

  In a quarter of the scenes the camera looks down or along the ground, which is then full of things.

  Args:
    rng: of this sequence's scene.
    view_width: of the view in pixels.
    columns, rows: of the panorama.
  """
  unit = view_width / 640
  kind = rng.choice(["sky", "horizon", "low"], p=[0.2, 0.55, 0.25])
  horizon = {"sky": rows + int(rng.uniform(0.05, 1) * rows), "horizon": int(rows * rng.uniform(0.4, 1.0)),
             "low": int(rows * rng.uniform(-0.4, 0.3))}[kind]
  scene = Scene(_sky(rng, rows, columns, horizon, unit), np.zeros((rows, columns), np.float32), horizon, unit)
  if horizon >= rows:
    return scene
  warm_ground = rng.random() < 0.65
  level = rng.uniform(110, 215) if warm_ground else rng.uniform(5, 70)
  ground.draw_ground(rng, scene.radiance, horizon, unit, level, busy=kind == "low")
  if horizon > 20 * unit and rng.random() < 0.6:
    _hills(rng, scene, level)
  if horizon > 0 and rng.random() < 0.7:
    _trees(rng, scene, level + rng.uniform(-20, 40))
  depth = max(rows - max(horizon, 0), 1)
  for _ in range(int(rng.choice([0, 0, 1, 3, 6]))):
    foot = max(horizon, 0) + (rng.uniform(0, 0.9) * depth if kind == "low" else unit * rng.uniform(0, 35))
    structures.draw_building(rng, scene.radiance, foot, unit)
  for _ in range(int(rng.choice([0, 1, 3], p=[0.6, 0.3, 0.1]))):
    structures.draw_mast(rng, scene.radiance, max(horizon, 0) + rng.uniform(0, 0.5) * depth, unit)
  if rng.random() < 0.2:
    structures.draw_wires(rng, scene.radiance, max(horizon, 0), unit)
  if rng.random() < 0.25:
    structures.draw_branches(rng, scene.radiance, horizon, unit)
  return scene


def _sky(rng: np.random.Generator, rows: int, columns: int, horizon: int, unit: float) -> np.ndarray:
  """Sky: dark and cold above, brighter (more air, warmer) towards the horizon, sometimes the other way round."""
  y = np.arange(rows, dtype=np.float32)[:, None]
  level, glow = rng.uniform(30, 130), rng.uniform(-25, 90)
  reach = rows * rng.uniform(0.15, 0.8)
  column = level + glow * np.exp((np.minimum(y, horizon) - horizon) / reach)
  tilt = rng.normal(0, 8) * np.linspace(-1, 1, columns, dtype=np.float32)
  sky = (column + tilt).astype(np.float32)
  kind = rng.choice(["clear", "haze", "streaks", "cumulus", "overcast"], p=[0.4, 0.15, 0.2, 0.17, 0.08])
  if kind == "clear":
    return sky
  scale = unit * {"haze": 260, "streaks": 90, "cumulus": 190, "overcast": 240}[kind] * rng.uniform(0.7, 1.3)
  stretch = {"haze": 2.0, "streaks": 5.0, "cumulus": 1.6, "overcast": 2.2}[kind]
  gain = {"haze": 0.4, "streaks": 0.6, "cumulus": 0.55, "overcast": 0.55}[kind]
  clouds = fractal_noise(rng, rows, columns, scale, 6, gain, stretch)
  if kind in ("cumulus", "streaks"):
    cover = rng.uniform(-0.3, 1.0)
    inside = fractal_noise(rng, rows, columns, scale / 3, 4, 0.55, stretch)
    clouds = smoothstep(clouds, cover, cover + rng.uniform(0.5, 1.6)) * (1 + 0.18 * inside)
  strength = rng.uniform(8, 30) if kind in ("haze", "overcast") else rng.uniform(20, 75)
  return sky + np.float32(strength) * clouds


def _paint(radiance: np.ndarray, top: int, mask: np.ndarray, values: np.ndarray) -> None:
  """Blends `values` over the rows from `top` on, in place, by `mask` in 0..1."""
  band = radiance[top:top + len(mask)]
  band += mask * (values - band)


def _layer_mask(crest: np.ndarray, top: int, stop: int, softness: float) -> np.ndarray:
  """1 below a crest line [columns] of row numbers, 0 above it; rows `top` to `stop`."""
  y = np.arange(top, stop, dtype=np.float32)[:, None]
  return np.clip((y - crest) / softness + 0.5, 0, 1)


def _hills(rng: np.random.Generator, scene: Scene, level: float) -> None:
  """One to three ridges, the farther the nearer to the sky's grey level."""
  _rows, columns = scene.radiance.shape
  sky_level = float(scene.radiance[max(scene.horizon - 5, 0)].mean())
  count = int(rng.integers(1, 4))
  for k in range(count):
    height = scene.unit * rng.uniform(10, 90) * (1 - k / (count + 1))
    crest = scene.horizon - height * (1 + 0.5 * ridge_line(rng, columns, columns / 3, 6, 0.5))
    top = int(np.clip(crest.min() - 2, 0, scene.horizon - 1))
    nearness = (k + 1) / (count + 1)
    texture = fractal_noise(rng, scene.horizon - top, columns, 30 * scene.unit, 4, 0.7, 1.5)
    values = sky_level + nearness * (level - sky_level) + np.float32(6 * nearness) * texture
    _paint(scene.radiance, top, _layer_mask(crest, top, scene.horizon, 1.5), values)


def tree_band(rng: np.random.Generator, crest: np.ndarray, top: int, stop: int, level: float,
              unit: float) -> tuple[np.ndarray, np.ndarray]:
  """Foliage below a crest line.

  Args:
    rng: random generator.
    crest: [columns] row numbers of the tree tops.
    top, stop: rows of the result.
    level: mean grey level.
    unit: width of the view / 640.

  Returns:
    (mask, values), float32 [stop - top, columns]: opacity 0..1 and grey levels.
  """
  columns = len(crest)
  leaves = fractal_noise(rng, stop - top, columns, 9 * unit, 3, 0.8)
  crowns = fractal_noise(rng, stop - top, columns, 40 * unit, 3, 0.6, 0.7)
  y = np.arange(top, stop, dtype=np.float32)[:, None]
  below = (y - crest) / np.float32(unit)
  mask = np.clip(below / 3 + 1.6 * leaves, 0, 1) * smoothstep(below, -8, 2)
  mask = np.maximum(mask, smoothstep(below, 8, 22))
  shade = np.exp(-np.maximum(below, 0) / 60)  # The tops see the sky, trunks and ground behind are warmer or colder.
  return mask, np.float32(level) + 9 * leaves + 14 * crowns + np.float32(rng.uniform(-25, 25)) * shade


def _trees(rng: np.random.Generator, scene: Scene, level: float) -> None:
  """A wood in front of everything: rounded crowns of about equal height, with gaps at the top edge."""
  rows, columns = scene.radiance.shape
  height = scene.unit * rng.uniform(15, 110)
  base = min(scene.horizon + scene.unit * rng.uniform(0, 40), rows)
  rolling = ridge_line(rng, columns, columns / 2, 3)
  crown = np.abs(ridge_line(rng, columns, 60 * scene.unit, 3, 0.6))
  crest = base - height * (1 + 0.25 * rolling) + 0.2 * height * crown
  top = int(np.clip(crest.min() - 10 * scene.unit, 0, rows - 2))
  stop = int(np.clip(base + scene.unit * rng.uniform(2, 25), top + 1, rows))
  mask, values = tree_band(rng, crest, top, stop, level, scene.unit)
  _paint(scene.radiance, top, mask, values)


def add_occluder(rng: np.random.Generator, scene: Scene, box_ltrb: tuple[float, float, float, float]) -> None:
  """Puts a building, a tree or a cloud over a part of the panorama, into `radiance` and `occluders`, in place.

  Args:
    rng: of this sequence's scene.
    scene: to be changed.
    box_ltrb: left, top, right, bottom in panorama pixels of what has to be covered.
  """
  rows, columns = scene.radiance.shape
  left, top, right, bottom = box_ltrb
  high_up = bottom < min(scene.horizon, rows) - 0.25 * rows
  kind = rng.choice(["cloud", "building", "tree"], p=[0.6, 0.25, 0.15] if high_up else [0.1, 0.5, 0.4])
  margin = scene.unit * rng.uniform(3, 8)  # Above and below only: a wider occluder would hide the target for longer.
  left, right = max(left, 0), min(right, columns)
  top, bottom = max(top - margin, 0), min(bottom + margin, rows)
  if right - left < 1 or bottom - top < 1:
    return
  if kind == "building":
    x0, x1 = int(left), int(np.ceil(right))
    foot = _foot(scene, bottom)
    structures.paint_facade(rng, scene.radiance, x0, int(top), x1, foot, scene.unit)
    scene.occluders[int(top):foot, x0:x1] = 1
  else:
    paint = _occluding_cloud if kind == "cloud" else _occluding_tree
    mask, values = paint(rng, scene, left, top, right, bottom)
    _paint(scene.radiance, 0, mask, values)
    np.maximum(scene.occluders, mask, out=scene.occluders)


def _foot(scene: Scene, bottom: float) -> int:
  """Row where an occluder that reaches at least to row `bottom` stands on the ground."""
  rows = len(scene.radiance)
  return rows if scene.horizon >= rows else min(rows, max(int(bottom), scene.horizon) + int(30 * scene.unit))


def _ellipse(scene: Scene, left: float, top: float, right: float, bottom: float, spread: float) -> np.ndarray:
  """How far every pixel is outside (> 0) or inside (< 0) an ellipse over the box, in units of `spread` pixels."""
  rows, columns = scene.radiance.shape
  half_width, half_height = max((right - left) / 2, 3), max(bottom - top, 4)  # Twice the box's height.
  x = (np.arange(columns, dtype=np.float32) - np.float32((left + right) / 2)) / np.float32(half_width)
  y = (np.arange(rows, dtype=np.float32)[:, None] - np.float32((top + bottom) / 2)) / np.float32(half_height)
  return (np.hypot(x, y) - 1) * np.float32(min(half_width, half_height) / spread)


def _occluding_cloud(rng: np.random.Generator, scene: Scene, left: float, top: float, right: float,
                     bottom: float) -> tuple[np.ndarray, np.ndarray]:
  """A dense cloud over the box, ragged and soft around it: (mask, values) of the whole panorama."""
  rows, columns = scene.radiance.shape
  edge = 5 * scene.unit + 0.12 * np.sqrt((right - left) * (bottom - top))
  ragged = fractal_noise(rng, rows, columns, 6 * edge, 5, 0.7, 1.5)
  mask = 1 - smoothstep(_ellipse(scene, left, top, right, bottom, edge) - 0.6 * np.maximum(ragged, -0.5), -0.4, 1.0)
  level = float(scene.radiance[int(top):int(bottom) + 1, int(left):int(right) + 1].mean())
  level = np.clip(level + rng.choice([-1, 1]) * rng.uniform(20, 60), 15, 240)
  return mask, np.float32(level) + 5 * ragged


def _occluding_tree(rng: np.random.Generator, scene: Scene, left: float, top: float, right: float,
                    bottom: float) -> tuple[np.ndarray, np.ndarray]:
  """A single tree: a leafy crown over the box and a trunk below it: (mask, values) of the whole panorama."""
  rows, columns = scene.radiance.shape
  leaves = fractal_noise(rng, rows, columns, 12 * scene.unit, 3, 0.8)
  crowns = fractal_noise(rng, rows, columns, 50 * scene.unit, 3, 0.6)
  outside = _ellipse(scene, left, top, right, bottom, 5 * scene.unit)
  mask = 1 - smoothstep(outside - 1.2 * np.maximum(crowns, -0.3) - 1.2 * np.maximum(leaves, -0.5), 0.0, 1.0)
  trunk = max((right - left) * 0.08, 2 * scene.unit)
  x0, x1 = int((left + right) / 2 - trunk), int((left + right) / 2 + trunk) + 1
  mask[int((top + bottom) / 2):_foot(scene, bottom), max(x0, 0):max(x1, 0)] = 1
  return mask, np.float32(rng.uniform(60, 200)) + 10 * leaves + 12 * crowns
