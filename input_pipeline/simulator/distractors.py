"""Look-alikes: birds, aircraft and other drones, each on its own way through the world."""

import dataclasses

import numpy as np

from input_pipeline.simulator import flyers, raster
from input_pipeline.simulator.motion import Plan


@dataclasses.dataclass(frozen=True)
class Distractor:
  """One look-alike.

  Attributes:
    flyer: its silhouettes.
    centres: float64 [T, 2], view pixels.
    shapes: float64 [T, 2], w and h in pixels.
    contrast: grey levels over the background, of either sign; of a twin, a factor on the target's contrast.
    twin: whether it looks like the target.
  """

  flyer: flyers.Flyer
  centres: np.ndarray
  shapes: np.ndarray
  contrast: float
  twin: bool


def draw_distractors(rng: np.random.Generator, plan: Plan, target: flyers.Flyer, width: int,
                     height: int) -> list[Distractor]:
  """Draws none (in about half of the sequences) to four look-alikes.

  Half of them are twins of the target: the same silhouette at nearly the same size and contrast, on a path that
  crosses close to it. The others cross the view somewhere.

  Args:
    rng: of this sequence's distractors.
    plan: of the sequence.
    target: what the target looks like.
    width, height: of the view in pixels.
  """
  count = int(rng.choice([0, 1, 2, 3, 4], p=[0.5, 0.25, 0.13, 0.07, 0.05]))
  return [_draw_twin(rng, plan, target, width, height) if rng.random() < 0.5 else _draw_other(rng, plan, width, height)
          for _ in range(count)]


def _draw_twin(rng: np.random.Generator, plan: Plan, target: flyers.Flyer, width: int, height: int) -> Distractor:
  boxes = plan.boxes
  centres = boxes[:, :2] + boxes[:, 2:] / 2
  size = float(np.median(np.sqrt(boxes[:, 2] * boxes[:, 3])))
  meet = int(rng.integers(len(boxes)))
  beside, heading = rng.uniform(0, 2 * np.pi, 2)
  speed = size * min(rng.exponential(0.12), 0.6)
  t = np.arange(len(boxes)) - meet
  path = speed * t[:, None] * np.array([np.cos(heading), 0.5 * np.sin(heading)])
  path += size * rng.uniform(0.8, 3.0) * np.array([np.cos(beside), np.sin(beside)])
  path, zoom = _seen(centres[meet] + path, plan, meet, width, height)
  same = target.kind == "drone" or rng.random() < 0.5
  kind = target.kind if same else str(rng.choice(flyers.KINDS))
  flyer = target if same and rng.random() < 0.5 else flyers.draw_flyer(
      rng, kind, len(boxes), float(np.median(boxes[:, 2] / boxes[:, 3])), rng.choice([-1.0, 1.0], p=[0.25, 0.75]))
  shapes = np.minimum(boxes[meet, 2:] * rng.uniform(0.75, 1.3) * zoom, width / 3)
  return Distractor(flyer, path, shapes, rng.uniform(0.7, 1.4), True)


def _draw_other(rng: np.random.Generator, plan: Plan, width: int, height: int) -> Distractor:
  num_frames = len(plan.boxes)
  kind = str(rng.choice(["bird", "aeroplane", "helicopter", "drone"], p=[0.5, 0.15, 0.1, 0.25]))
  typical = float(np.median(np.sqrt(plan.boxes[:, 2] * plan.boxes[:, 3])))
  size = np.clip(typical * rng.uniform(0.6, 1.6), 4, width / 6)
  meet = int(rng.integers(num_frames))  # In this frame it is in the view.
  point = rng.uniform(0.1, 0.9, 2) * [width, height]
  heading = rng.uniform(0, 2 * np.pi)
  speed = size * {"bird": 0.12, "aeroplane": 0.06, "helicopter": 0.05, "drone": 0.05}[kind] * rng.exponential(1.0)
  t = np.arange(num_frames) - meet
  path = point + speed * t[:, None] * np.array([np.cos(heading), 0.4 * np.sin(heading)])
  if kind in ("bird", "drone"):
    path += size * 0.4 * np.sin(0.07 * t[:, None] * rng.uniform(0.5, 2, 2) + rng.uniform(0, 6.3, 2))
  path, zoom = _seen(path, plan, meet, width, height)
  aspect = rng.uniform(*{"bird": (1.2, 2.2), "aeroplane": (1.2, 4.5), "helicopter": (1.5, 3.0),
                         "drone": (1.1, 2.5)}[kind])
  shapes = (size * np.exp(rng.normal(0, 0.2) * t / num_frames))[:, None] * zoom * np.array([1.0, 1 / aspect])
  flyer = flyers.draw_flyer(rng, kind, num_frames, aspect, 1.0)
  return Distractor(flyer, path, np.maximum(shapes, 1.5), rng.choice([-1, 1], p=[0.35, 0.65]) * rng.uniform(10, 90),
                    False)


def _seen(path: np.ndarray, plan: Plan, meet: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
  """A path [T, 2] in the view of frame `meet`, as the moving and zooming camera sees it; its magnification [T, 1]."""
  middle = np.array([width / 2, height / 2])
  shift, zoom = plan.camera[:, :2], plan.camera[:, 3:]
  world = (path - middle) / zoom[meet] + shift[meet]
  return middle + zoom * (world - shift), zoom / zoom[meet]


def paint_distractor(distractor: Distractor, t: int, radiance: np.ndarray, lens_sigma: float,
                     target_contrast: float) -> None:
  """Blends a distractor into a frame, in place.

  Args:
    distractor: what to draw.
    t: frame number.
    radiance: float32 [H, W].
    lens_sigma: of the lens's blur in pixels.
    target_contrast: of the target in radiance, of either sign.
  """
  box = np.concatenate([distractor.centres[t] - distractor.shapes[t] / 2, distractor.shapes[t]])
  if (box[:2] > radiance.shape[::-1]).any() or (box[:2] + box[2:] < 0).any():
    return
  polygons, paints, extent = flyers.outline(distractor.flyer, t)
  patch = raster.render_polygons(polygons, paints, box, lens_sigma, extent)
  where = raster.overlap(patch, radiance.shape[1], radiance.shape[0])
  if where is None:
    return
  view, own = where
  area = radiance[view]
  contrast = distractor.contrast
  if distractor.twin:
    contrast *= target_contrast / patch.mean_heat
  area += patch.opacity[own] * (area.mean() - area) + patch.heat[own] * np.float32(contrast)


def distractor_boxes(distractors: list[Distractor], num_frames: int, width: int, height: int) -> np.ndarray:
  """Where they are to be seen, at least half of each: float32 [M, 5], frame and xywh clipped to the view, by frame."""
  rows = []
  for t in range(num_frames):
    for distractor in distractors:
      middle, shape = distractor.centres[t], distractor.shapes[t]
      low, high = np.maximum(middle - shape / 2, 0), np.minimum(middle + shape / 2, [width, height])
      inside = high - low
      if (inside > 0).all() and inside.prod() >= 0.5 * shape.prod():
        rows.append([t, *low, *inside])
  return np.array(rows, np.float32).reshape(-1, 5)
