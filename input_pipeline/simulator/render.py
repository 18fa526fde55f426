"""One simulated sequence from its seed: plan, scene, target and sensor put together."""

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike

from input_pipeline import geometry
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import Sequence
from input_pipeline.simulator import attributes, motion, raster
from input_pipeline.simulator.backgrounds import photographed_scene
from input_pipeline.simulator.distractors import distractor_boxes, draw_distractors, paint_distractor
from input_pipeline.simulator.scene import Scene, add_occluder, build_scene
from input_pipeline.simulator.sensor import Sensor
from input_pipeline.simulator.streams import stream
from input_pipeline.simulator.target import TargetPainter, draw_target

MIN_VISIBLE_SHARE = 0.25  # Of the silhouette's area; below it the target counts as absent (our choice).
_MIN_SIDE = 32
_LEAST_PANORAMA, _LARGEST_PANORAMA = 1.25, 2.4  # In views; a longer way of the camera is folded back at the edges.
_FIRST_CONTRAST = 20.0  # Display grey levels of a twin in the first frame, where the target's are not known yet.


def simulate(seed: int, index: int, num_frames: int, width: int = 640, height: int = 512,
             trajectory: np.ndarray | None = None, camera_jumps: bool = False,
             background: np.ndarray | None = None) -> Sequence:
  """A labelled thermal-infrared sequence; a pure function of its arguments.

  Labels: the box is the extent of the target's silhouette before all blur, clipped to the frame. In nearly half of the
  sequences it is larger than that by fixed shares of its sides, as many annotators draw it. A target behind something
  keeps its whole box, as long as at least a quarter of its silhouette is inside the view and uncovered; with less it is
  absent (our choice). The first frame is always visible and fully inside.

  Args:
    seed: of the data set, >= 0.
    index: of the sequence in it, >= 0; names the sequence `sim_<index>`.
    num_frames: T >= 1.
    width, height: of the frames in pixels, at least 32; sizes and motion scale with width / 640.
    trajectory: boxes to replay, [T, 4] xywh in pixels of the frame, all-zero rows where absent; None draws them.
    camera_jumps: whether the camera jumps several times, by up to half the view; not with a trajectory.
    background: a real frame without target, uint8 [h, w], to make the scene from; None draws one.

  Returns:
    A Sequence with frames uint8 [T, H, W] held in memory, boxes float32 [T, 4], visible bool [T], attributes and
    look-alikes.

  Raises:
    UserError: a frame or sequence too small, a trajectory of another length or without the target in its first frame.
  """
  if num_frames < 1 or min(width, height) < _MIN_SIDE:
    raise UserError(f"cannot simulate {num_frames} frames of {width}x{height}, expected at least one frame of "
                    f"{_MIN_SIDE}x{_MIN_SIDE} pixels")
  rng = stream(seed, index, "motion")
  if trajectory is None:
    plan = motion.draw_plan(rng, num_frames, width, height, camera_jumps)
  else:
    plan = motion.replay_plan(rng, _checked(trajectory, num_frames, width, height), width)
  sensor = Sensor(stream(seed, index, "sensor"), stream(seed, index, "temporal_noise"), num_frames, width, height)
  scene, views = _prepare_scene(stream(seed, index, "scene"), plan, width, height, background)
  scene.radiance = sensor.optics(scene.radiance, width)
  scene.occluders = cv2.GaussianBlur(scene.occluders, (0, 0), sensor.lens_sigma)
  target = draw_target(stream(seed, index, "target"), plan.boxes)
  painter = TargetPainter(target, plan.boxes, sensor)
  others = draw_distractors(stream(seed, index, "distractors"), plan, target.flyer, width, height)
  behind = _behind(plan)
  frames = np.empty((num_frames, height, width), np.uint8)
  events = attributes.Events.empty(num_frames)
  for t in range(num_frames):
    radiance = _look(scene.radiance, views[t], (0, 0, width, height))
    sensor.adapt(t, radiance)
    smear = sensor.smear((plan.camera[t, :2] - plan.camera[max(t - 1, 0), :2]) * plan.camera[t, 3])
    if np.hypot(*smear) >= 1.5:
      radiance = cv2.filter2D(radiance, -1, raster.line_kernel(smear), borderType=cv2.BORDER_REFLECT_101)
    for other in others:
      paint_distractor(other, t, radiance, sensor.lens_sigma, painter.contrast or _FIRST_CONTRAST / sensor.gain)
    if not plan.hidden[t]:
      _paint_target(t, radiance, painter, sensor, scene if behind[t] else None, views[t], events)
    frames[t] = sensor.expose(radiance)
  boxes, visible = _labels(plan, events, width, height, replayed=trajectory is not None)
  names = attributes.sequence_attributes(boxes, visible, events, plan.camera, width)
  return Sequence(f"sim_{index:06d}", ArrayFrames(frames), boxes, visible, names,
                  lookalikes=distractor_boxes(others, num_frames, width, height))


def _checked(trajectory: ArrayLike, num_frames: int, width: int, height: int) -> np.ndarray:
  trajectory = np.asarray(trajectory, np.float64)
  if trajectory.shape != (num_frames, 4) or not np.isfinite(trajectory).all():
    raise UserError(f"the trajectory has the shape {trajectory.shape}, expected ({num_frames}, 4) finite numbers")
  x, y, w, h = trajectory[0]
  if w <= 0 or h <= 0 or x >= width or y >= height or x + w <= 0 or y + h <= 0:
    raise UserError(f"the trajectory's first box {trajectory[0].tolist()} shows no target in a frame of "
                    f"{width}x{height} pixels")
  return trajectory


def _prepare_scene(rng: np.random.Generator, plan: motion.Plan, width: int, height: int,
                   background: np.ndarray | None = None) -> tuple[Scene, list[np.ndarray]]:
  """The panorama, with an occluder for each planned occlusion, and each frame's view-to-panorama map [2, 3]."""
  view = np.array([width, height])
  roll_room = 0.02 * view
  zoom_room = view * max(1 / plan.camera[:, 3].min() - 1, 0) / 2
  moved = np.ptp(plan.camera[:, :2], axis=0)
  size = np.clip(view + 2 * (roll_room + zoom_room) + moved, _LEAST_PANORAMA * view, _LARGEST_PANORAMA * view)
  columns, rows = np.ceil(size).astype(int)
  scene = (build_scene(rng, width, columns, rows) if background is None
           else photographed_scene(rng, background, width, columns, rows))
  low = roll_room + zoom_room
  high = np.ceil(size) - view - low
  # Where the panorama holds the camera's whole way, it starts where nothing has to be folded.
  back = plan.camera[:, :2].min(axis=0)
  start = low - back + rng.random(2) * np.maximum(high - low - moved, 0)
  shift = _fold(start + plan.camera[:, :2], low, high)
  views = [_view(place, roll, zoom, width, height)
           for place, (roll, zoom) in zip(shift, plan.camera[:, 2:], strict=True)]
  for gap in plan.gaps:
    if gap.kind != "occlusion":
      continue
    boxes = plan.boxes[gap.start:gap.stop].copy()
    # A quarter less on either side: the target already counts as absent when three quarters of it are covered.
    boxes[:, 0] += boxes[:, 2] * MIN_VISIBLE_SHARE
    boxes[:, 2] *= 1 - 2 * MIN_VISIBLE_SHARE
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)  # [G, 2, 2]
    world = np.concatenate([c @ v[:, :2].T + v[:, 2] for c, v in zip(corners, views[gap.start:gap.stop], strict=True)])
    add_occluder(rng, scene, (*world.min(axis=0), *world.max(axis=0)))
  return scene, views


def _fold(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Reflects values [T, 2] into low..high, as often as needed."""
  span = np.maximum(high - low, 1e-6)
  return low + span - np.abs((values - low) % (2 * span) - span)


def _view(shift: np.ndarray, roll: float, zoom: float, width: int, height: int) -> np.ndarray:
  """The affine map [2, 3] from view pixels to panorama pixels: roll and zoom about the view's middle, then shift."""
  c, s = math.cos(roll), math.sin(roll)
  middle = np.array([width / 2, height / 2])
  turn = np.array([[c, -s], [s, c]]) / zoom
  return np.concatenate([turn, (middle + shift - turn @ middle)[:, None]], axis=1)


def _look(panorama: np.ndarray, view: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
  """The panorama seen through `view`, for the region (left, top, width, height) of the view; float32."""
  left, top, width, height = region
  local = view.copy()
  local[:, 2] += view[:, :2] @ np.array([left, top], float)
  if np.array_equal(local[:, :2], np.eye(2)):  # Neither rolled nor zoomed: the same three times as fast.
    return cv2.getRectSubPix(panorama, (width, height), (local[0, 2] + (width - 1) / 2, local[1, 2] + (height - 1) / 2))
  return cv2.warpAffine(panorama, local, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                        borderMode=cv2.BORDER_REFLECT_101)


def _behind(plan: motion.Plan) -> np.ndarray:
  """bool [T]: frames in which the target is farther away than the occluders."""
  behind = np.zeros(len(plan.boxes), bool)
  for gap in plan.gaps:
    if gap.kind == "occlusion":
      lead = motion.occlusion_lead(gap)
      behind[max(gap.start - lead, 1):gap.stop + lead] = True
  return behind


def _paint_target(t: int, radiance: np.ndarray, painter: TargetPainter, sensor: Sensor, occluding_scene: Scene | None,
                  view: np.ndarray, events: attributes.Events) -> None:
  """Draws the target of frame `t` into `radiance` and notes in `events` what is to be seen of it."""
  height, width = radiance.shape
  patch = painter.patch(t)
  total = float(patch.opacity.sum())
  where = raster.overlap(patch, width, height)
  if where is None or total <= 0:
    return
  (rows, columns), own = where
  opacity = patch.opacity[own]
  inside = float(opacity.sum())
  events.in_view[t] = inside / total
  cover = None
  if occluding_scene is not None:
    region = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    cover = _look(occluding_scene.occluders, view, region)
    events.uncovered[t] = float((opacity * (1 - cover)).sum()) / max(inside, 1e-6)
  surround = painter.surround(t, radiance)
  if surround is None:
    return
  events.clutter[t] = surround[1] * sensor.gain
  events.contrast[t] = painter.paint(surround, t, radiance, patch, where, cover)


def _labels(plan: motion.Plan, events: attributes.Events, width: int, height: int,
            replayed: bool) -> tuple[np.ndarray, np.ndarray]:
  """Boxes clipped to the frame, and visibility. A replayed box is visible wherever any of it is in the frame."""
  ltrb = np.clip(geometry.xywh_to_ltrb(plan.boxes), 0, [width, height, width, height])
  boxes = np.concatenate([ltrb[:, :2], ltrb[:, 2:] - ltrb[:, :2]], axis=1).astype(np.float32)
  visible = ~plan.hidden & (boxes[:, 2:] > 0).all(axis=1)
  if not replayed:
    visible &= events.in_view * events.uncovered >= MIN_VISIBLE_SHARE
  return np.where(visible[:, None], boxes, np.float32(0)), visible
