"""Look-alikes: birds, aircraft and a second drone, each on its own way through the world."""

import dataclasses

import numpy as np

from input_pipeline.simulator import multirotor, raster


@dataclasses.dataclass(frozen=True)
class Distractor:
  """One look-alike.

  Attributes:
    kind: "bird", "aircraft" or "drone".
    centres: float64 [T, 2], world pixels (the camera's shift still to be subtracted).
    size: float64 [T], width in pixels.
    aspect: w/h when level.
    contrast: grey levels over the background, of either sign.
    phase, rate: of a bird's wing beat, radians and radians per frame.
    pose: (yaw, elevation, roll), radians.
    model: a drone's parts; None for the others.
  """

  kind: str
  centres: np.ndarray
  size: np.ndarray
  aspect: float
  contrast: float
  phase: float
  rate: float
  pose: tuple[float, float, float]
  model: multirotor.Multirotor | None


def draw_distractors(rng: np.random.Generator, plan, width: int, height: int) -> list[Distractor]:
  """Draws none (in about two thirds of the sequences) to three distractors that cross the view at some time."""
  count = int(rng.choice([0, 1, 2, 3], p=[0.65, 0.2, 0.1, 0.05]))
  return [_draw_one(rng, plan, width, height) for _ in range(count)]


def _draw_one(rng, plan, width, height):
  num_frames = len(plan.boxes)
  kind = str(rng.choice(["bird", "aircraft", "drone"], p=[0.5, 0.2, 0.3]))
  typical = float(np.median(np.sqrt(plan.boxes[:, 2] * plan.boxes[:, 3])))
  size = np.clip(typical * rng.uniform(0.6, 1.6), 4, width / 6)
  meet = int(rng.integers(num_frames))  # In this frame it is in the view.
  point = plan.camera[meet, :2] + rng.uniform(0.1, 0.9, 2) * [width, height]
  heading = rng.uniform(0, 2 * np.pi)
  speed = size * {"bird": 0.12, "aircraft": 0.06, "drone": 0.05}[kind] * rng.exponential(1.0)
  t = np.arange(num_frames) - meet
  path = point + speed * t[:, None] * np.array([np.cos(heading), 0.4 * np.sin(heading)])
  if kind != "aircraft":
    path += size * 0.4 * np.sin(0.07 * t[:, None] * rng.uniform(0.5, 2, 2) + rng.uniform(0, 6.3, 2))
  model = multirotor.draw_multirotor(rng, 1.0) if kind == "drone" else None
  aspect = {"bird": 1.6, "aircraft": rng.uniform(2.0, 4.5), "drone": 1.5}[kind]
  return Distractor(
      kind, path, size * np.exp(rng.normal(0, 0.2) * t / num_frames), aspect,
      rng.choice([-1, 1], p=[0.35, 0.65]) * rng.uniform(10, 90), rng.uniform(0, 6.3), rng.uniform(0.5, 1.6),
      (rng.uniform(0, 6.3), multirotor.view_elevation(1.5), rng.normal(0, 0.1)), model)


def silhouette(distractor: Distractor, t: int):
  """Polygons and paints of frame `t` for `raster.render_polygons`, and w/h of its extent."""
  if distractor.model is not None:
    polygons, paints = multirotor.project(distractor.model, *distractor.pose)
  elif distractor.kind == "bird":
    lift = 0.55 * np.sin(distractor.phase + distractor.rate * t)
    body = np.array([[-0.18, -0.02], [0, -0.09], [0.2, 0.0], [0, 0.1]])
    wings = [np.array([[0, -0.05], [side * 0.5, -lift * 0.6 - 0.08], [side, -lift], [side * 0.45, -lift * 0.5 + 0.08],
                       [0, 0.07]]) for side in (-1, 1)]
    polygons, paints = [*wings, body], [(1, 0.8), (1, 0.8), (1, 1.3)]
  else:
    thick = 1 / distractor.aspect
    fuselage = np.array([[-1, 0], [-0.8, -0.16 * thick], [0.75, -0.16 * thick], [1, 0], [0.75, 0.16 * thick]])
    tail = np.array([[-1, -0.9 * thick], [-0.85, -0.9 * thick], [-0.65, 0], [-0.95, 0]])
    wing = np.array([[0.15, 0], [-0.35, 0.9 * thick], [-0.55, 0.9 * thick], [-0.2, 0]])
    engine = np.array([[-0.1, 0.15 * thick], [0.15, 0.15 * thick], [0.15, 0.4 * thick], [-0.1, 0.4 * thick]])
    polygons, paints = [wing, tail, fuselage, engine], [(1, 0.8), (1, 0.8), (1, 1.0), (1, 2.0)]
  points = np.concatenate(polygons)
  span = np.ptp(points, axis=0)
  return polygons, paints, float(span[0] / max(span[1], 1e-3))


def paint_distractor(distractor: Distractor, t: int, radiance: np.ndarray, centre, lens_sigma: float) -> None:
  """Blends a distractor into a frame, in place.

  Args:
    distractor: what to draw.
    t: frame number.
    radiance: float32 [H, W].
    centre: x, y in the view.
    lens_sigma: of the lens's blur in pixels.
  """
  polygons, paints, aspect = silhouette(distractor, t)
  # A bird's wing span stays, its height changes with the beat.
  w = distractor.size[t]
  h = max(w / aspect, 1.5)
  patch = raster.render_polygons(polygons, paints, (centre[0] - w / 2, centre[1] - h / 2, w, h), lens_sigma)
  where = raster.overlap(patch, radiance.shape[1], radiance.shape[0])
  if where is None:
    return
  view, own = where
  area = radiance[view]
  area += patch.opacity[own] * (area.mean() - area) + patch.heat[own] * np.float32(distractor.contrast)
