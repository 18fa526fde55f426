"""The target over a sequence: its pose, its contrast, and how it is blended into a frame."""

import dataclasses

import numpy as np

from input_pipeline.simulator import flyers, raster
from input_pipeline.simulator.motion import smooth_curve
from input_pipeline.simulator.sensor import Sensor

_MAX_CONTRAST = 140.0  # Grey levels on the display.


@dataclasses.dataclass(frozen=True)
class Target:
  """What does not depend on the frame's pixels.

  Attributes:
    flyer: its silhouettes.
    inset: float64 [4], shares of the box's w, h that its left, top, right, bottom lie beyond the silhouette: zeros
      for a tight box.
    snr: float64 [T], wanted |target - background| / local deviation, >= 0 before a crossover turns its sign.
    snr_base: its magnitude, leaving aside how it wavers over time.
    least_contrast: grey levels on the display that the target differs by at least, before a crossover fades it.
    polarity: +1 for a target that starts warmer than its background, -1 for a colder one.
    inertia: how fast it takes on the level of what is behind it, 0..1 per frame; a slow one keeps its own
      temperature, and turns from hot to cold where the background changes.
  """

  flyer: flyers.Flyer
  inset: np.ndarray
  snr: np.ndarray
  snr_base: float
  least_contrast: float
  polarity: float
  inertia: float


def draw_target(rng: np.random.Generator, boxes: np.ndarray) -> Target:
  """Draws a target for the boxes [T, 4] of a plan: mostly a drone, sometimes another thing that flies."""
  num_frames = len(boxes)
  polarity = 1.0 if rng.random() < 0.7 else -1.0
  snr, least_contrast = _draw_contrast(rng)
  wander = np.exp(0.5 * (smooth_curve(rng, num_frames) - 0.5))
  aspect = float(np.median(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-6)))
  kind = str(rng.choice(flyers.KINDS, p=[0.62, 0.12, 0.13, 0.13] if aspect > 1.25 else [0.75, 0.15, 0.1, 0]))
  flyer = flyers.draw_flyer(rng, kind, num_frames, aspect, polarity)
  inertia = float(rng.choice([0.15, 0.01], p=[0.8, 0.2]))
  return Target(flyer, _draw_inset(rng), snr * wander * _crossover(rng, num_frames), snr, least_contrast, polarity,
                inertia)


def _draw_inset(rng: np.random.Generator) -> np.ndarray:
  """How much larger than the target its box is drawn: not at all, or by up to three times, as annotators do."""
  if rng.random() < 0.55:
    return np.zeros(4)
  both = rng.uniform(0.05, 0.55) * rng.uniform(0.8, 1.2, 2)  # Of the width and of the height.
  split = rng.uniform(0.35, 0.65, 2)
  return np.concatenate([both * split, both * (1 - split)])


def _draw_contrast(rng: np.random.Generator) -> tuple[float, float]:
  """Wanted ratio to the local deviation and least contrast in display grey levels (our choice).

  Two sequences in five have a ratio of 1.5 to 5, a third has the bright target of a cloudless night, the rest
  is between.
  """
  kind = rng.random()
  if kind < 0.4:
    return float(rng.uniform(1.5, 5.0)), 6.0
  ratio = float(np.exp(rng.normal(np.log(8.0), 0.5)))
  return (ratio, float(rng.uniform(10, 30))) if kind < 0.65 else (ratio, float(rng.uniform(40, 130)))


def _crossover(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """A factor on the contrast, [T]: 1 except in sequences where the target gets as warm as what is behind it.

  In half of those it comes out on the other side: hot becomes cold, or cold hot.
  """
  if num_frames < 12 or rng.random() > 0.2:
    return np.ones(num_frames)
  t = np.arange(num_frames)
  if rng.random() < 0.5:
    middle, ramp = rng.uniform(0.15, 0.85) * num_frames, rng.uniform(2, max(num_frames / 4, 6))
    return np.clip((middle - t) / ramp, -1, 1)
  length = int(np.clip(rng.exponential(14) + 3, 3, num_frames // 3))
  start = int(rng.integers(4, num_frames - length))
  distance = np.maximum(np.maximum(start - t, t - (start + length - 1)), 0)
  return 0.02 + 0.98 * np.clip(distance / max(length // 2, 2), 0, 1)


class TargetPainter:
  """Draws the target frame by frame; follows the background's level with inertia, as a real target's does not jump.

  Attributes:
    contrast: of the last frame painted, in radiance, of either sign; 0 before the first.
  """

  def __init__(self, target: Target, boxes: np.ndarray, sensor: Sensor):
    """What to paint, its boxes, float64 [T, 4], and what will see it."""
    self._target, self._boxes, self._sensor = target, boxes, sensor
    self._level: tuple[float, float] | None = None  # Smoothed (mean, deviation) of the surround.
    self._polarity = target.polarity
    self.contrast = 0.0

  def patch(self, t: int) -> raster.Patch:
    """The silhouette of frame `t`, blurred by lens and motion; it fills the box less its inset before the blur."""
    polygons, paints, extent = flyers.outline(self._target.flyer, t)
    left, top, right, bottom = self._target.inset
    x, y, w, h = self._boxes[t]
    inner = x + left * w, y + top * h, max((1 - left - right) * w, 2.0), max((1 - top - bottom) * h, 2.0)
    before = self._boxes[max(t - 1, 0)]
    smear = self._sensor.smear([x + w / 2 - before[0] - before[2] / 2, y + h / 2 - before[1] - before[3] / 2])
    return raster.render_polygons(polygons, paints, inner, self._sensor.lens_sigma, extent, smear)

  def surround(self, t: int, radiance: np.ndarray) -> tuple[float, float] | None:
    """Mean and deviation of the background at and around the box of frame `t`; None when it lies outside the view."""
    x, y, w, h = self._boxes[t]
    x0, y0 = int(np.clip(x - w / 2 - 2, 0, radiance.shape[1])), int(np.clip(y - h / 2 - 2, 0, radiance.shape[0]))
    x1, y1 = int(np.clip(x + 1.5 * w + 3, 0, radiance.shape[1])), int(np.clip(y + 1.5 * h + 3, 0, radiance.shape[0]))
    if x1 - x0 < 2 or y1 - y0 < 2:
      return None
    area = radiance[y0:y1, x0:x1]
    return float(area.mean()), float(area.std())

  def paint(self, now: tuple[float, float], t: int, radiance: np.ndarray, patch: raster.Patch,
            where: tuple[raster.Region, raster.Region], cover: np.ndarray | None) -> float:
    """Blends the target into a frame, in place.

    Args:
      now: mean and deviation of the background, from `surround`.
      t: frame number.
      radiance: float32 [H, W], the scene before the sensor's gain.
      patch: of this frame.
      where: from `raster.overlap`.
      cover: float32 like the patch's part in the view: opacity of what is in front of the target, or None.

    Returns:
      The achieved ratio |target - background| / local deviation, noise included.
    """
    target, gain, noise = self._target, self._sensor.gain, self._sensor.noise
    before, inertia = self._level, target.inertia
    mean, deviation = now if before is None else (
        before[0] + inertia * (now[0] - before[0]), before[1] + inertia * (now[1] - before[1]))
    self._level = mean, deviation
    wanted = float(np.clip(
        target.snr_base * np.hypot(deviation * gain, noise), target.least_contrast, _MAX_CONTRAST))
    if before is None:
      shown = self._sensor.display(mean)
      if not 0 <= shown + 0.7 * self._polarity * wanted <= 255 and 0 <= shown - 0.7 * self._polarity * wanted <= 255:
        self._polarity = -self._polarity  # The display has no room for a brighter (darker) target here.
    self.contrast = float(self._polarity * wanted * target.snr[t] / target.snr_base / gain)
    view, own = where
    opacity, heat = patch.opacity[own], patch.heat[own]
    visible = opacity if cover is None else opacity * (1 - cover)
    heat = heat if cover is None else heat * (1 - cover)
    # The heat's sign is that of the drawn polarity.
    scale = target.polarity * self.contrast / patch.mean_heat
    area = radiance[view]
    area += visible * (mean - area) + heat * np.float32(scale)
    shown = mean + self.contrast - now[0]
    return abs(shown) * gain / max(np.hypot(now[1] * gain, noise), 1e-6)
