"""Where the frames of a sequence come from: image files, a video, or an array.

Every source yields single-channel frames, `uint8 [H, W]`. Colour is converted to grey by OpenCV's luma
weights; 16-bit frames are mapped to 8 bits by one linear map per sequence (the 0.1 and 99.9 percentiles of its
first frame; our choice: a map per frame would flicker). Either conversion is said once per sequence.
"""

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import cv2
import numpy as np

from input_pipeline.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".ts")


@dataclasses.dataclass(frozen=True)
class Cutout:
  """What is stored of one frame: all of it, or the part around the target.

  Attributes:
    image: uint8 [h, w].
    x, y: its first pixel's place in the frame.
    mean: the whole frame's mean grey level; None where `image` is the whole frame.
  """

  image: np.ndarray
  x: int = 0
  y: int = 0
  mean: float | None = None


@dataclasses.dataclass(frozen=True)
class Encoded:
  """The same as a `Cutout`, with the image as JPEG: what it decodes to in grey is the stored image."""

  jpeg: bytes
  x: int = 0
  y: int = 0
  mean: float | None = None


class FrameSource(Protocol):
  """Random access to the frames of one sequence."""

  def __len__(self) -> int:
    """The number of frames."""

  def __getitem__(self, t: int) -> np.ndarray:
    """Frame `t` as uint8 [H, W]; raises DataError when it cannot be decoded. Safe to call from several threads."""

  def __iter__(self) -> Iterator[np.ndarray]:
    """All frames in order; the fast way to read a video."""

  def cutout(self, t: int) -> Cutout:
    """What is stored of frame `t`; errors as `__getitem__`."""

  def encoded(self, t: int) -> Encoded | None:
    """The same undecoded where it is stored as JPEG, so that a reader may decode only the rows it needs."""

  def readable(self) -> Iterator[np.ndarray | DataError]:
    """All announced frames in order, or in a frame's place the error that it gives."""

  def times(self) -> np.ndarray | None:
    """float64 [T], seconds of every frame since the first; None where the source does not know."""


class _WholeFrames:
  """The defaults of sources that hold whole frames."""

  def cutout(self, t: int) -> Cutout:
    return Cutout(self[t])

  def encoded(self, t: int) -> Encoded | None:
    del t
    return None

  def readable(self) -> Iterator[np.ndarray | DataError]:
    for t in range(len(self)):
      try:
        yield self[t]
      except DataError as error:
        yield error

  def times(self) -> np.ndarray | None:
    return None


class _ToGray8:
  """Converts decoded frames to uint8 [H, W], with one map for the whole sequence."""

  def __init__(self, where: str):
    self._where = where
    self._range = None  # (low, high) grey levels of the first frame, for frames deeper than 8 bits.
    self._said = False

  def __call__(self, image: np.ndarray, first_frame=None) -> np.ndarray:
    """`first_frame`: a function returning the sequence's decoded first frame, called for deep frames only."""
    if image.ndim == 3 and image.shape[2] == 1:
      image = image[..., 0]
    if image.ndim == 3:
      self._say("colour frames, converted to grey")
      if image.shape[2] == 4:
        image = image[..., :3]
      image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY)
    if image.dtype == np.uint8:
      return image
    if self._range is None:
      reference = image if first_frame is None else first_frame()
      self._range = tuple(np.percentile(reference, [0.1, 99.9]).astype(float))
      self._say(f"{image.dtype} frames, mapped to 8 bits by grey levels {self._range[0]:g}..{self._range[1]:g}")
    low, high = self._range
    return np.clip((image.astype(np.float32) - low) * (255.0 / max(high - low, 1.0)), 0, 255).round().astype(np.uint8)

  def _say(self, text: str):
    if not self._said:
      logging.getLogger(__name__).info("%s: %s", self._where, text)
      self._said = True


class ImageFiles(_WholeFrames):
  """Frames from image files, in the order given."""

  def __init__(self, paths):
    self.paths = tuple(os.fspath(path) for path in paths)
    self._convert = _ToGray8(os.path.dirname(self.paths[0]) if self.paths else "")
    self._said_colours = False

  def __len__(self):
    return len(self.paths)

  def __getitem__(self, t):
    return self._convert(self._decode(t), lambda: self._decode(0))

  def __iter__(self):
    return (self[t] for t in range(len(self)))

  def encoded(self, t):
    return Encoded(self._read(t).tobytes()) if _is_jpeg(self.paths[t]) else None

  def _read(self, t) -> np.ndarray:
    path = self.paths[t]
    try:
      data = np.fromfile(path, np.uint8)
    except OSError as error:
      raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    # libjpeg fills what is missing of a cut-off file with grey and only warns, so the end marker is looked for.
    if not data.size or (data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in data[-64:].tobytes()):
      raise DataError(_unreadable(path, data.size))
    return data

  def _decode(self, t) -> np.ndarray:
    path, data = self.paths[t], self._read(t)
    if _is_jpeg(path) and self._said_colours:
      flags = cv2.IMREAD_GRAYSCALE  # The luma that the file stores, not computed back from its colours.
    else:
      flags = cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(data, flags)
    if image is None:
      raise DataError(_unreadable(path, data.size))
    if _is_jpeg(path) and not self._said_colours:
      self._said_colours = True
      if image.ndim == 3:
        self._convert(image)  # Says it.
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return image


def _is_jpeg(path: str) -> bool:
  return path.lower().endswith((".jpg", ".jpeg"))


def _unreadable(path: str, size: int) -> str:
  return f"{path}: not a readable image (truncated or corrupt, {size} bytes)"


class VideoFile(_WholeFrames):
  """Frames from a video file. Going forward is cheap; going back starts the decoder again from the first frame."""

  def __init__(self, path, num_frames: int | None = None):
    """`num_frames`: how many frames to expect; None counts those that can be decoded (reads the whole video)."""
    self.path = os.fspath(path)
    self._lock = threading.Lock()
    self._capture, self._next = None, 0
    self._convert = _ToGray8(self.path)
    if not os.path.isfile(self.path):
      raise DataError(f"{self.path}: no such video file")
    self._length = sum(1 for _ in self._frames()) if num_frames is None else num_frames

  def __len__(self):
    return self._length

  def __getitem__(self, t):
    if not 0 <= t < len(self):
      raise IndexError(t)
    with self._lock:
      if self._capture is None or t < self._next:
        self._capture, self._next = self._open(), 0
      while self._next < t and self._capture.grab():
        self._next += 1
      read, image = self._capture.read() if self._next == t else (False, None)
      self._next += 1
    if not read:
      raise DataError(f"{self.path}: the video ends before frame {t} (expected {len(self)} frames)")
    return self._convert(image)

  def __iter__(self):
    count = 0
    for image in self._frames():
      if count == len(self):
        return
      yield image
      count += 1
    if count < len(self):
      raise DataError(f"{self.path}: the video ends after {count} frames, {len(self)} were expected")

  def _frames(self):
    capture = self._open()
    while True:
      read, image = capture.read()
      if not read:
        return
      yield self._convert(image)

  def _open(self):
    capture = cv2.VideoCapture(self.path)
    if not capture.isOpened():
      raise DataError(f"{self.path}: not a readable video")
    return capture


class ArrayFrames(_WholeFrames):
  """Frames held in memory, uint8 [T, H, W]."""

  def __init__(self, frames: np.ndarray):
    self._frames = frames

  def __len__(self):
    return len(self._frames)

  def __getitem__(self, t):
    return self._frames[t]

  def __iter__(self):
    return iter(self._frames)


class ChangedFrames(_WholeFrames):
  """The frames of another source, changed one by one."""

  def __init__(self, frames: FrameSource, change: Callable[[np.ndarray, int], np.ndarray]):
    """`change`: (frame uint8 [H, W], its number) -> uint8 [H', W'], the same whenever it is called."""
    self._frames, self._change = frames, change

  def __len__(self):
    return len(self._frames)

  def __getitem__(self, t):
    return self._change(self._frames[t], t)

  def __iter__(self):
    return (self._change(frame, t) for t, frame in enumerate(self._frames))
