"""What video compression leaves of a frame: blocks, lost texture, frozen noise."""

import cv2
import numpy as np


class Codec:
  """JPEG-coded frames, alone or, as video codecs do it, as differences from the frame shown before.

  Coding differences freezes the noise of what stands still and smears what moves; without the motion
  compensation of real codecs a moving camera costs more quality (our choice: it is cheap).
  """

  def __init__(self, quality: int, interval: int):
    """Sets JPEG's quality 1..100 and the number of frames from one frame coded alone to the next (1: all are)."""
    self._quality, self._interval = quality, interval
    self._shown: np.ndarray | None = None
    self._count = 0

  def pass_on(self, frame: np.ndarray) -> np.ndarray:
    """The next frame, uint8 [H, W], as it arrives after coding and decoding."""
    if self._shown is None or self._count % self._interval == 0:
      self._shown = self._coded(frame)
    else:
      change = cv2.addWeighted(frame, 1.0, self._shown, -1.0, 128.0)
      self._shown = cv2.addWeighted(self._shown, 1.0, self._coded(change), 1.0, -128.0)
    self._count += 1
    return self._shown

  def _coded(self, frame: np.ndarray) -> np.ndarray:
    coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded


def draw_codec(rng: np.random.Generator) -> Codec | None:
  """None in half of the sequences; else mostly mild, sometimes with blocks that one sees (our choice)."""
  quality, interval = int(np.exp(rng.uniform(np.log(20), np.log(80)))), int(rng.integers(8, 50))
  kind = rng.choice(["none", "frames", "differences"], p=[0.5, 0.2, 0.3])
  return None if kind == "none" else Codec(quality, 1 if kind == "frames" else interval)
