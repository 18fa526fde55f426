"""Where the target is in every frame, and where the camera looks: no pixels here, so it is cheap to test."""

import dataclasses

import numpy as np

from input_pipeline.simulator import measured


@dataclasses.dataclass(frozen=True)
class Gap:
  """Frames `start <= t < stop` in which the target is meant to be out of sight."""

  start: int
  stop: int
  kind: str  # "occlusion" or "out_of_view"


@dataclasses.dataclass(frozen=True)
class Plan:
  """The geometry of one sequence.

  Attributes:
    boxes: float64 [T, 4], xywh of the target in view pixels, also where it is hidden or outside (never clipped).
    camera: float64 [T, 4]: the view's shift over the world (x, y, world pixels; the first frame is 0, 0), roll
      (radians) and zoom (view pixels per world pixel).
    gaps: planned absences, in order of time.
    hidden: bool [T], frames in which nothing of the target is drawn; only replayed trajectories have them.
  """

  boxes: np.ndarray
  camera: np.ndarray
  gaps: tuple[Gap, ...]
  hidden: np.ndarray


def draw_plan(rng: np.random.Generator, num_frames: int, width: int, height: int, camera_jumps: bool = False) -> Plan:
  """Draws sizes, aspect ratios, motion, camera and absences from the measured statistics.

  The path is drawn in view coordinates, which is what the statistics were measured in; the camera's motion then says
  which part of it belongs to the camera, and the target's world path is the sum of both.

  Args:
    rng: of this sequence's motion.
    num_frames: T >= 1.
    width, height: of the view in pixels; sizes and motion scale with width / 640.
    camera_jumps: whether the camera jumps several times in this sequence, by up to half the view; else it does so
      about once in a thousand frames, which gives the measured share of targets that leave an 8x window.

  Returns:
    A Plan whose first box lies fully inside the view.
  """
  unit = width / measured.REFERENCE_WIDTH
  steps = _zoom_steps(rng, num_frames)
  sizes = np.clip(_sizes(rng, num_frames) * steps, 6.2, 90.0) * unit
  shapes = _shapes(rng, sizes, width, height)  # [T, 2] w, h
  jumps = _jump_frames(rng, num_frames, camera_jumps)
  centres = _path(rng, sizes, shapes, width, height, steps, jumps)
  gaps = _place_gaps(rng, num_frames)
  for gap in gaps:
    if gap.kind == "out_of_view":
      _leave_view(rng, centres, shapes, gap, width, height, sudden=rng.random() < (0.6 if camera_jumps else 0.25))
  camera = _camera(rng, centres, sizes, unit, steps)
  for gap in gaps:
    if gap.kind == "occlusion":
      _pan_past_occluder(rng, camera, sizes, gap)
  boxes = np.concatenate([centres - shapes / 2, shapes], axis=1)
  return Plan(boxes, camera, tuple(gaps), np.zeros(num_frames, bool))


def replay_plan(rng: np.random.Generator, trajectory: np.ndarray, width: int) -> Plan:
  """A plan that follows given boxes; the camera's share in the motion is drawn.

  Args:
    rng: of this sequence's motion.
    trajectory: [T, 4] xywh in view pixels, all-zero rows where the target is absent; the first row is present.
    width: of the view in pixels.
  """
  trajectory = np.asarray(trajectory, np.float64)
  hidden = ~np.all(trajectory[:, 2:] > 0, axis=1)
  times = np.arange(len(trajectory))
  boxes = np.stack([np.interp(times, times[~hidden], trajectory[~hidden, i]) for i in range(4)], axis=1)
  sizes = np.sqrt(boxes[:, 2] * boxes[:, 3])
  camera = _camera(rng, boxes[:, :2] + boxes[:, 2:] / 2, sizes, width / measured.REFERENCE_WIDTH,
                   np.ones(len(boxes)))
  return Plan(boxes, camera, (), hidden)


def smooth_curve(rng: np.random.Generator, num_frames: int, waves: int = 3) -> np.ndarray:
  """A smooth random curve [T] that spans exactly 0..1 (0.5 everywhere for one frame)."""
  t = np.linspace(0, 1, num_frames)
  curve = sum(
      (rng.standard_normal() / (k + 1) * np.cos(np.pi * (k + rng.random()) * t + rng.uniform(0, 2 * np.pi))
       for k in range(waves)), start=np.zeros(num_frames))
  span = np.ptp(curve)
  return (curve - curve.min()) / span if span > 0 else np.full(num_frames, 0.5)


def _sizes(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """sqrt(wh) per frame, [T], pixels of a 640-wide frame."""
  typical = measured.draw_size(rng)
  log_range = measured.draw_log_size_range(rng, num_frames)
  return typical * np.exp(log_range * (smooth_curve(rng, num_frames) - 0.5))


def _shapes(rng: np.random.Generator, sizes: np.ndarray, width: int, height: int) -> np.ndarray:
  """w, h per frame, [T, 2]: the typical aspect ratio wavers by about 10 % as the drone turns and tilts."""
  aspect = measured.draw_aspect(rng) * np.exp(rng.uniform(0, 0.3) * (smooth_curve(rng, len(sizes), 5) - 0.5))
  shapes = sizes[:, None] * np.stack([np.sqrt(aspect), 1 / np.sqrt(aspect)], axis=1)
  return np.clip(shapes, 2.0, [width / 2, height / 2])


def _zoom_steps(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """A factor on all sizes, [T]: 1, except in one sequence of ten, where the zoom switches once or twice, by up to 2."""
  steps = np.ones(num_frames)
  if num_frames < 20 or rng.random() > 0.1:
    return steps
  for start in np.sort(rng.integers(5, num_frames, rng.integers(1, 3))):
    factor = 2.0 ** rng.uniform(0.3, 1.0)
    steps[start:] *= 1 / factor if steps[-1] > 1 or (steps[-1] == 1 and rng.random() < 0.5) else factor
  return steps / np.exp(np.log(steps).mean())


def _jump_frames(rng: np.random.Generator, num_frames: int, camera_jumps: bool) -> list[int]:
  """Frames in which the camera has jumped, at least ten apart."""
  if num_frames < 20:
    return []
  count = 3 + rng.poisson(num_frames / 100) if camera_jumps else rng.poisson(num_frames / 1000)
  jumps: list[int] = []
  for t in rng.integers(5, num_frames, count):
    if all(abs(t - other) >= 10 for other in jumps):
      jumps.append(int(t))
  return jumps


def _path(rng: np.random.Generator, sizes: np.ndarray, shapes: np.ndarray, width: int, height: int, steps: np.ndarray,
          jumps: list[int]) -> np.ndarray:
  """Centres [T, 2] that stay inside the view, moving by the drawn ratio of their size in every frame.

  Besides, they move with the picture when the zoom switches (`steps`), and by up to half the view in the frames
  `jumps`.
  """
  ratios = measured.draw_motion_ratios(rng, len(sizes))
  view = np.array([width, height], float)
  centres = np.empty((len(sizes), 2))
  margin = np.minimum(shapes / 2 + 2, view * 0.45)
  # Cameras follow their target, so the middle of the view is the likeliest place (our choice).
  centres[0] = np.clip(view * rng.normal(0.5, 0.17, 2), margin[0], view - margin[0])
  shake = rng.random() ** 2  # 0: smooth flight, 1: every frame in a new direction.
  heading = rng.uniform(0, 2 * np.pi)
  for t, ratio in enumerate(ratios, start=1):
    off_centre = (centres[t - 1] - view / 2) / (view / 2)
    back = np.arctan2(-off_centre[1], -off_centre[0])
    turn = (back - heading + np.pi) % (2 * np.pi) - np.pi
    heading += rng.normal(0, 0.15) + 0.25 * turn * np.hypot(*off_centre) ** 3
    angle = heading + shake * rng.uniform(-np.pi, np.pi)
    step = ratio * sizes[t] * np.array([np.cos(angle), np.sin(angle)])
    leaves = (centres[t - 1] + step < margin[t]) | (centres[t - 1] + step > view - margin[t])
    # Turned back, not cut short: cutting would bend the measured distribution.
    step = np.where(leaves, -np.sign(off_centre) * np.abs(step), step)
    if leaves.any():
      heading = np.arctan2(step[1], step[0])
    if t in jumps:
      step = _jump(rng, centres[t - 1], margin[t], view)
    elif steps[t] != steps[t - 1]:
      step = off_centre * (view / 2) * (steps[t] / steps[t - 1] - 1)
    centres[t] = np.clip(centres[t - 1] + step, margin[t], view - margin[t])
  return centres


def _jump(rng: np.random.Generator, centre: np.ndarray, margin: np.ndarray, view: np.ndarray) -> np.ndarray:
  """A shift of 15 to 50 % of the view's side along both axes together that ends inside the view."""
  best = np.zeros(2)
  for _ in range(20):
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.5)
    step = reach * view * [np.cos(angle), np.sin(angle)]
    inside = np.clip(centre + step, margin, view - margin) - centre
    if np.allclose(inside, step):
      return step
    best = max(best, inside, key=lambda v: np.hypot(*v))
  return best


def _place_gaps(rng: np.random.Generator, num_frames: int) -> list[Gap]:
  """Non-overlapping gaps with time before, between and after them."""
  gaps: list[Gap] = []
  spare = 8
  for length in measured.draw_gap_lengths(rng, num_frames):
    kind = "occlusion" if rng.random() < 0.5 else "out_of_view"
    if num_frames - length - 2 * spare < 1:
      continue
    start = int(rng.integers(spare, num_frames - length - spare + 1))
    new = Gap(start, start + length, kind)
    if all(new.stop + 2 * spare <= old.start or old.stop + 2 * spare <= new.start for old in gaps):
      gaps.append(new)
  return sorted(gaps, key=lambda gap: gap.start)


def _leave_view(rng: np.random.Generator, centres: np.ndarray, shapes: np.ndarray, gap: Gap, width: int, height: int,
                sudden: bool) -> None:
  """Bends `centres` (in place) so that the target is outside the view during `gap`; at once if `sudden`."""
  view = np.array([width, height], float)
  last = min(gap.stop, len(centres) - 1)
  way_out = _outside(centres[gap.start], shapes[gap.start], view, int(np.argmax(_nearness(centres[gap.start], view))))
  side = int(np.argmax(_nearness(way_out, view)))
  size = np.sqrt(np.prod(shapes[gap.start]))
  if rng.random() < 0.6:  # Back about where it left.
    way_in = _outside(np.clip(way_out + size * rng.normal(0, 1.0, 2), 0, view), shapes[last], view, side)
  else:
    way_in = _outside(centres[last], shapes[last], view, int(rng.integers(4)))
  speed = size * rng.uniform(0.4, 1.5)
  lead_out = int(np.clip(np.linalg.norm(way_out - centres[gap.start]) / speed, 1, min(20, gap.start - 1)))
  lead_in = int(np.clip(np.linalg.norm(way_in - centres[last]) / speed, 1, 20))
  if sudden:  # The camera jumps away from the target, and back.
    lead_out = lead_in = 0
  for t in range(gap.start - lead_out, min(gap.stop + lead_in, len(centres))):
    if t < gap.start:
      share, point = 1 - (gap.start - t) / (lead_out + 1), way_out
    elif t < gap.stop:
      progress = (t - gap.start + 1) / (gap.stop - gap.start + 1)
      share, point = 1.0, way_out + progress * (way_in - way_out)
      point = _outside(point, shapes[t], view, int(np.argmax(_nearness(point, view))))
    else:
      share, point = 1 - (t - gap.stop + 1) / (lead_in + 1), way_in
    centres[t] = (1 - share) * centres[t] + share * point


def _nearness(point: np.ndarray, view: np.ndarray) -> np.ndarray:
  """How near a point is to the left, right, top, bottom edge of the view, [4], larger is nearer."""
  return np.array([-point[0], point[0] - view[0], -point[1], point[1] - view[1]])


def _outside(point: np.ndarray, shape: np.ndarray, view: np.ndarray, side: int) -> np.ndarray:
  """`point` moved just beyond one side of the view (0 left, 1 right, 2 top, 3 bottom)."""
  moved, axis = np.array(point, float), side // 2
  moved[axis] = view[axis] + shape[axis] * 0.75 + 2 if side % 2 else -shape[axis] * 0.75 - 2
  return moved


def _camera(rng: np.random.Generator, centres: np.ndarray, sizes: np.ndarray, unit: float,
            steps: np.ndarray) -> np.ndarray:
  """Camera shift, roll and zoom, [T, 4]: a slow pan, minus its share of the target's motion in the view."""
  num_frames = len(centres)
  moved = np.diff(centres, axis=0)
  share = rng.choice([0.0, rng.uniform(0.3, 1.0)], p=[0.35, 0.65])
  jump = np.linalg.norm(moved, axis=1) > sizes[1:]
  share = np.where(jump, 1.0, share)  # Nothing flies that fast: it is the camera that jerked.
  share[np.diff(steps) != 0] = 0.0
  speed = unit * rng.choice([0.0, rng.exponential(2.0)], p=[0.3, 0.7])
  pan = [(smooth_curve(rng, num_frames) - 0.5) * 2 * speed * stretch for stretch in (1.0, 0.35)]
  rolls = rng.random() < 0.4  # The others stand on a tripod or a gimbal.
  roll = rolls * ((smooth_curve(rng, num_frames) - 0.5) * rng.exponential(0.05) + rng.normal(0, 0.02))
  # In part of the sequences the target changes its size because the lens zooms: then the scene does, too.
  lens = rng.choice([0.0, rng.uniform(0.5, 1.0)], p=[0.65, 0.35])
  slow = sizes / steps
  zoom = steps / steps[0] * (slow / slow[0]) ** lens
  zoom = np.clip(zoom * max(1.0, 0.75 / zoom.min()), 0.75, 2.5)
  shift = np.zeros((num_frames, 2))
  shift[1:] = np.cumsum(np.stack(pan, axis=1)[1:] - share[:, None] * moved / zoom[1:, None], axis=0)
  return np.concatenate([shift, roll[:, None], zoom[:, None]], axis=1)


def occlusion_lead(gap: Gap) -> int:
  """Frames before and after an occlusion in which the target may be partly behind the occluder."""
  return int(np.ceil(1.3 / _occlusion_speed(gap))) + 2


def _occlusion_speed(gap: Gap) -> float:
  """World motion past an occluder, in target sizes per frame: slower for longer gaps, so occluders stay narrow."""
  return float(np.clip(3.0 / (gap.stop - gap.start), 0.15, 0.5))


def _pan_past_occluder(rng: np.random.Generator, camera: np.ndarray, sizes: np.ndarray, gap: Gap) -> None:
  """Adds a steady pan (in place) around the gap, so that the target moves past a thing that stands in the world."""
  velocity = rng.choice([-1.0, 1.0]) * _occlusion_speed(gap) * sizes[gap.start] / camera[gap.start, 3]
  lead = occlusion_lead(gap)
  active = np.zeros(len(camera))
  active[max(gap.start - lead, 1):gap.stop + lead] = velocity
  camera[:, 0] += np.cumsum(active)
