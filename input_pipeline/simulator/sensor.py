"""What the camera does to the scene: automatic gain, fixed pattern, stripes, temporal noise, overlays."""

import cv2
import numpy as np


class Sensor:
  """Turns radiance into 8-bit frames. Has a state: the automatic gain follows the scene slowly.

  Attributes:
    lens_sigma: blur of the lens in pixels; applied to panorama and silhouettes, not here.
    noise: deviation of the temporal noise in grey levels of the frame.
    gain: grey levels per radiance in the current frame, set by `adapt`.
  """

  def __init__(self, rng: np.random.Generator, temporal_rng: np.random.Generator, num_frames: int, width: int,
               height: int):
    """Draws one camera.

    Args:
      rng: of this sequence's sensor.
      temporal_rng: of its temporal noise.
      num_frames: T.
      width, height: of the view in pixels.
    """
    self.lens_sigma = float(rng.uniform(0.45, 1.1) * max(width / 640, 0.6))
    self.noise = float(np.exp(rng.normal(np.log(2.0), 0.5)))
    self._rng, self._temporal = rng, temporal_rng
    self._bank = self._draw_noise_bank(width, height)
    self._fixed = self._draw_fixed_pattern(width, height)
    self._drift = 1 + rng.uniform(0, 0.06) * _wander(rng, num_frames)
    self._offset = rng.uniform(0, 6) * _wander(rng, num_frames)
    self._strength = rng.uniform(0.2, 0.85)  # 0: fixed gain, 1: every scene gets the same mean and deviation.
    self._inertia = rng.uniform(0.02, 0.3)
    self._wanted = (rng.uniform(75, 150), rng.uniform(25, 55))
    self._seen = None
    self._overlay = _draw_overlay(rng, width, height) if rng.random() < 0.2 else None
    self.gain = 1.0
    self._mean, self._mean_out = 0.0, 0.0

  def _draw_noise_bank(self, width, height):
    """Noise [H + 64, W + 64]; each frame takes a window at a random place, much cheaper than fresh noise."""
    noise = self._temporal.standard_normal((height + 64, width + 64), dtype=np.float32)
    if self._rng.random() < 0.6:  # Compressed video has no noise at single pixels.
      noise = cv2.GaussianBlur(noise, (0, 0), 0.6)
    return noise * np.float32(self.noise / noise.std())

  def _draw_fixed_pattern(self, width, height):
    rng = self._rng
    pixels = rng.standard_normal((height, width), dtype=np.float32) * np.float32(rng.exponential(0.6))
    columns = rng.standard_normal(width, dtype=np.float32) * np.float32(rng.exponential(0.9))
    rows = rng.standard_normal((height, 1), dtype=np.float32) * np.float32(rng.exponential(0.3))
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
    shading = np.float32(rng.normal(0, 9)) * (x * x + y * y)
    dead = rng.random((height, width), dtype=np.float32) < rng.choice([0, 2e-5])
    return pixels + columns + rows + shading + dead * np.float32(rng.uniform(-80, 80))

  def adapt(self, t: int, radiance: np.ndarray) -> None:
    """Sets gain and offset of frame `t` from the scene without the target.

    The gain is measured before the target is drawn so that frames with and without it differ at the target only.
    """
    sparse = radiance[::8, ::8]
    now = np.array([sparse.mean(), sparse.std()], np.float64)
    self._seen = now if self._seen is None else self._seen + self._inertia * (now - self._seen)
    mean, deviation = self._seen
    ratio = (self._wanted[1] / max(deviation, 1.0)) ** self._strength
    self.gain = float(np.clip(ratio, 0.5, 2.2) * self._drift[t])
    self._mean = mean
    self._mean_out = (1 - self._strength) * mean + self._strength * self._wanted[0] + self._offset[t]

  def expose(self, radiance: np.ndarray) -> np.ndarray:
    """The frame, uint8 [H, W], from radiance float32 [H, W] (which is changed)."""
    height, width = radiance.shape
    dy, dx = self._temporal.integers(0, 65, 2)
    flip = int(self._temporal.integers(-1, 3))
    noise = self._bank[dy:dy + height, dx:dx + width]
    frame = cv2.addWeighted(radiance, self.gain, self._fixed, 1.0, self._mean_out - self._mean * self.gain)
    cv2.add(frame, cv2.flip(noise, flip) if flip < 2 else noise, frame)
    frame = np.clip(np.rint(frame, out=frame), 0, 255, out=frame).astype(np.uint8)
    if self._overlay is not None:
      mask, values = self._overlay
      frame[mask] = values
    return frame


def _wander(rng, num_frames):
  """A slow random walk that is pulled back to 0, [T], deviation about 1."""
  values, state = np.empty(num_frames), rng.standard_normal()
  for t, innovation in enumerate(rng.standard_normal(num_frames)):
    values[t] = state
    state = 0.97 * state + np.sqrt(1 - 0.97**2) * innovation
  return values


def _draw_overlay(rng, width, height):
  """Crosshair, corner marks and a line of digits, as surveillance cameras burn them in: (mask, values)."""
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
