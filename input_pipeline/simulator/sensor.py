"""What the camera does to the scene: blur, automatic gain, fixed pattern, stripes, noise, overlays, compression."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from input_pipeline.simulator.codec import draw_codec
from input_pipeline.simulator.overlay import draw_overlay


class Sensor:
  """Turns radiance into 8-bit frames. Has a state: the automatic gain follows the scene slowly.

  Attributes:
    lens_sigma: blur of the lens in pixels; applied to panorama and silhouettes, not in `expose`.
    exposure: share of the time between two frames in which light is collected: the length of motion blur.
    enhancement: 0..1, how much of the coarse differences in the scene the camera's detail enhancement takes away.
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
    unit = max(width / 640, 0.6)
    self.lens_sigma = float(rng.uniform(0.45, 1.3) * unit)
    if rng.random() < 0.12:
      self.lens_sigma *= rng.uniform(1.5, 2.5)  # Out of focus, or enlarged from a coarser sensor.
    self.exposure = float(rng.choice([0.0, rng.uniform(0.2, 0.9)], p=[0.6, 0.4]))
    self.enhancement = float(rng.choice([0.0, rng.uniform(0.3, 0.95)], p=[0.5, 0.5]))
    self._halo = rng.uniform(0.05, 0.18)  # Of the view's width, deviation of the enhancement's Gaussian.
    self._longest_smear = 14 * unit
    # One camera in eight looks at so little contrast that its gain shows the noise above all.
    self.noise = float(np.exp(rng.normal(np.log(1.4), 0.6)) if rng.random() < 0.88 else rng.uniform(6, 25))
    self._rng, self._temporal = rng, temporal_rng
    self._bank = self._draw_noise_bank(width, height)
    self._fixed = self._draw_fixed_pattern(width, height)
    self._drift = 1 + rng.uniform(0, 0.06) * _wander(rng, num_frames)
    self._offset = rng.uniform(0, 6) * _wander(rng, num_frames)
    self._strength = rng.uniform(0.2, 0.9)  # 0: fixed gain, 1: every scene gets the same mean and deviation.
    self._inertia = rng.uniform(0.02, 0.3)
    self._wanted = (rng.uniform(70, 160), rng.uniform(20, 75))
    self._seen: np.ndarray | None = None
    self._black_hot = rng.random() < 0.2
    self._overlay = draw_overlay(rng, width, height) if rng.random() < 0.2 else None
    self._codec = draw_codec(rng)
    self.gain = 1.0
    self._mean, self._mean_out = 0.0, 0.0

  def _draw_noise_bank(self, width: int, height: int) -> np.ndarray:
    """Noise [H + 64, W + 64]; each frame takes a window at a random place, much cheaper than fresh noise."""
    noise: np.ndarray = self._temporal.standard_normal((height + 64, width + 64), dtype=np.float32)
    if self._rng.random() < 0.5:  # Resampled video has no noise at single pixels.
      noise = cv2.GaussianBlur(noise, (0, 0), self._rng.uniform(0.5, 0.9))
    if self._rng.random() < 0.2:  # Rows that flicker.
      noise += self._temporal.standard_normal((height + 64, 1), dtype=np.float32) * np.float32(
          noise.std() * self._rng.uniform(0.2, 0.7))
    return noise * np.float32(self.noise / noise.std())

  def _draw_fixed_pattern(self, width: int, height: int) -> np.ndarray:
    """What is the same in all frames, float32 [H, W]: pixels, columns, rows, shading, dead pixels."""
    rng = self._rng
    amplified = max(self.noise / 2.5, 1.0)
    pixels = rng.standard_normal((height, width), dtype=np.float32) * np.float32(amplified * rng.exponential(0.5))
    columns = rng.standard_normal(width, dtype=np.float32) * np.float32(amplified * rng.exponential(0.6))
    rows = rng.standard_normal((height, 1), dtype=np.float32) * np.float32(amplified * rng.exponential(0.3))
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j].astype(np.float32)
    shading = np.float32(rng.normal(0, 13)) * (x * x + y * y)
    dead = rng.random((height, width), dtype=np.float32) < rng.choice([0, 2e-5])
    return pixels + columns + rows + shading + dead * np.float32(rng.uniform(-80, 80))

  def optics(self, panorama: np.ndarray, width: int) -> np.ndarray:
    """The panorama, float32 [PH, PW], after the lens and the camera's detail enhancement.

    Both are applied once to the panorama instead of to every frame. The enhancement takes off part of the coarse
    differences, of the size of a tenth of the view: bright ground gets a dark rim in the sky above it, as real
    cameras show.

    Args:
      panorama: grey levels.
      width: of the view in pixels.
    """
    panorama = cv2.GaussianBlur(panorama, (0, 0), self.lens_sigma)
    if self.enhancement > 0:
      coarse = cv2.resize(panorama, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
      coarse = cv2.GaussianBlur(coarse, (0, 0), self._halo * width / 8)
      coarse = cv2.resize(coarse - coarse.mean(), panorama.shape[::-1], interpolation=cv2.INTER_LINEAR)
      panorama = cv2.addWeighted(panorama, 1.0, coarse, -self.enhancement, 0.0)
    return panorama

  def smear(self, moved: ArrayLike) -> np.ndarray:
    """Motion blur x, y in pixels for a motion between two frames; none for a jump, which falls between exposures."""
    moved = np.asarray(moved, float) * self.exposure
    return moved if np.hypot(*moved) <= self._longest_smear else np.zeros(2)

  def display(self, radiance: float) -> float:
    """The grey level that a radiance has in the current frame, before fixed pattern, noise and inversion."""
    return self.gain * (radiance - self._mean) + self._mean_out

  def adapt(self, t: int, radiance: np.ndarray) -> None:
    """Sets gain and offset of frame `t` from the scene without the target.

    The gain is measured before the target is drawn so that frames with and without it differ at the target only.
    """
    sparse = radiance[::8, ::8]
    now = np.array([sparse.mean(), sparse.std()], np.float64)
    self._seen = now if self._seen is None else self._seen + self._inertia * (now - self._seen)
    mean, deviation = self._seen
    ratio = (self._wanted[1] / max(deviation, 1.0)) ** self._strength
    self.gain = float(np.clip(ratio, 0.5, 3.5) * self._drift[t])
    self._mean = mean
    self._mean_out = (1 - self._strength) * mean + self._strength * self._wanted[0] + self._offset[t]

  def expose(self, radiance: np.ndarray) -> np.ndarray:
    """The frame, uint8 [H, W], from radiance float32 [H, W]."""
    height, width = radiance.shape
    dy, dx = self._temporal.integers(0, 65, 2)
    noise = self._bank[dy:dy + height, dx:dx + width]
    frame = cv2.addWeighted(radiance, self.gain, self._fixed, 1.0, self._mean_out - self._mean * self.gain)
    either = cv2.add if self._temporal.random() < 0.5 else cv2.subtract
    frame = either(frame, noise, dtype=cv2.CV_8U)  # Rounds and clips.
    if self._black_hot:
      frame = cv2.bitwise_not(frame)
    if self._overlay is not None:
      mask, values = self._overlay
      frame[mask] = values
    return frame if self._codec is None else self._codec.pass_on(frame)


def _wander(rng: np.random.Generator, num_frames: int) -> np.ndarray:
  """A slow random walk that is pulled back to 0, [T], deviation about 1."""
  values, state = np.empty(num_frames), rng.standard_normal()
  for t, innovation in enumerate(rng.standard_normal(num_frames)):
    values[t] = state
    state = 0.97 * state + np.sqrt(1 - 0.97**2) * innovation
  return values
