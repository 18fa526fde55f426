"""The target over a sequence: its pose, its contrast, and how it is blended into a frame."""

import dataclasses

import numpy as np

from input_pipeline.simulator import multirotor, raster
from input_pipeline.simulator.motion import smooth_curve

_MAX_CONTRAST = 110.0  # Grey levels on the display.


@dataclasses.dataclass(frozen=True)
class Target:
  """What does not depend on the frame's pixels.

  Attributes:
    model: the multirotor.
    yaw, elevation, roll: float64 [T], radians.
    snr: float64 [T], wanted |target - background| / local deviation, with the sign of the target's polarity; it
      passes through about 0 in a thermal crossover.
    snr_base: its magnitude, leaving aside how it wavers over time.
    least_contrast: grey levels on the display that the target differs by at least, before a crossover fades it.
    polarity: +1 for a target that starts warmer than its background, -1 for a colder one.
  """

  model: multirotor.Multirotor
  yaw: np.ndarray
  elevation: np.ndarray
  roll: np.ndarray
  snr: np.ndarray
  snr_base: float
  least_contrast: float
  polarity: float


def draw_target(rng: np.random.Generator, boxes: np.ndarray) -> Target:
  """Draws a target for the boxes [T, 4] of a plan."""
  num_frames = len(boxes)
  polarity = 1.0 if rng.random() < 0.7 else -1.0
  snr, least_contrast = _draw_contrast(rng)
  wander = np.exp(0.5 * (smooth_curve(rng, num_frames) - 0.5))
  aspect = float(np.median(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-6)))
  elevation = multirotor.view_elevation(aspect) + 0.15 * (smooth_curve(rng, num_frames) - 0.5)
  yaw = rng.uniform(0, 2 * np.pi) + rng.normal(0, 1.0) * (smooth_curve(rng, num_frames) - 0.5)
  roll = rng.normal(0, 0.05) + rng.uniform(0, 0.35) * (smooth_curve(rng, num_frames, 6) - 0.5)
  model = multirotor.draw_multirotor(rng, polarity)
  return Target(model, yaw, elevation, roll, polarity * snr * wander * _crossover(rng, num_frames), snr, least_contrast,
                polarity)


def _draw_contrast(rng):
  """Wanted ratio to the local deviation and least contrast in display grey levels (our choice).

  One sequence in eight is hard, one in four has the bright target of a cloudless night, the rest is between.
  """
  kind = rng.random()
  if kind < 0.12:
    return float(rng.uniform(1.0, 2.2)), 4.0
  ratio = float(np.exp(rng.normal(np.log(5.0), 0.5)))
  return (ratio, float(rng.uniform(8, 20))) if kind < 0.75 else (ratio, float(rng.uniform(30, 80)))


def _crossover(rng, num_frames):
  """A factor on the contrast, [T]: 1 except in sequences where the target gets as warm as what is behind it."""
  factor = np.ones(num_frames)
  if num_frames < 12 or rng.random() > 0.15:
    return factor
  length = int(np.clip(rng.exponential(14) + 3, 3, num_frames // 3))
  start = int(rng.integers(4, num_frames - length))
  ramp = max(length // 2, 2)
  t = np.arange(num_frames)
  distance = np.maximum(np.maximum(start - t, t - (start + length - 1)), 0)
  factor = 0.02 + 0.98 * np.clip(distance / ramp, 0, 1)
  if rng.random() < 0.25:  # It comes out on the other side: hot becomes cold.
    factor[start + length // 2:] *= -1
  return factor


class TargetPainter:
  """Draws the target frame by frame; follows the background's level with inertia, as a real target's does not jump."""

  def __init__(self, target: Target, boxes: np.ndarray, lens_sigma: float):
    self._target, self._boxes, self._sigma = target, boxes, lens_sigma
    self._level = None  # Smoothed (mean, deviation) of the surround.

  def patch(self, t: int) -> raster.Patch:
    """The silhouette of frame `t`, blurred by the lens; it fills the box of that frame before the blur."""
    target = self._target
    polygons, paints = multirotor.project(target.model, target.yaw[t], target.elevation[t], target.roll[t])
    return raster.render_polygons(polygons, paints, self._boxes[t], self._sigma)

  def surround(self, t: int, radiance: np.ndarray) -> tuple[float, float] | None:
    """Mean and deviation of the background at and around the box of frame `t`; None when it lies outside the view."""
    x, y, w, h = self._boxes[t]
    x0, y0 = int(np.clip(x - w / 2 - 2, 0, radiance.shape[1])), int(np.clip(y - h / 2 - 2, 0, radiance.shape[0]))
    x1, y1 = (int(np.clip(v, 0, size)) for v, size in zip((x + 1.5 * w + 3, y + 1.5 * h + 3), radiance.shape[::-1]))
    if x1 - x0 < 2 or y1 - y0 < 2:
      return None
    area = radiance[y0:y1, x0:x1]
    return float(area.mean()), float(area.std())

  def paint(self, t: int, radiance: np.ndarray, patch: raster.Patch, cover: np.ndarray | None, noise: float,
            gain: float) -> float:
    """Blends the target into a frame, in place.

    Args:
      t: frame number.
      radiance: float32 [H, W], the scene before the sensor's gain.
      patch: of this frame.
      cover: float32 like the patch's part in the view: opacity of what is in front of the target, or None.
      noise: deviation of the temporal noise on the display.
      gain: display grey levels per radiance.

    Returns:
      The achieved ratio |target - background| / local deviation, noise included.
    """
    now = self.surround(t, radiance)
    where = raster.overlap(patch, radiance.shape[1], radiance.shape[0])
    if now is None or where is None:
      return 0.0
    # Slow: 0.15 per frame (our choice).
    self._level = now if self._level is None else tuple(a + 0.15 * (b - a) for a, b in zip(self._level, now))
    view, own = where
    opacity, heat = patch.opacity[own], patch.heat[own]
    visible = opacity if cover is None else opacity * (1 - cover)
    heat = heat if cover is None else heat * (1 - cover)
    # Mean |heat| where the silhouette is, after the blur: else tiny targets would drown in it.
    unit_heat = float((np.abs(patch.heat) * patch.opacity).sum() / max(patch.opacity.sum(), 1e-6))
    snr = abs(self._target.snr[t])
    sign = np.sign(self._target.snr[t]) * self._target.polarity  # -1 after a reversing crossover.
    deviation = np.hypot(self._level[1] * gain, noise)
    wanted = float(np.clip(self._target.snr_base * deviation, self._target.least_contrast, _MAX_CONTRAST))
    contrast = wanted * snr / self._target.snr_base / gain
    area = radiance[view]
    area += visible * (self._level[0] - area) + heat * np.float32(sign * contrast / max(unit_heat, 1e-6))
    return contrast * gain / max(np.hypot(now[1] * gain, noise), 1e-6)
