"""Opening a video, and what a pass through it finds: how many frames it announces, which can be decoded, and when.

Pixels are read as stored: a video that asks to be turned when it is shown is not. OpenCV decodes what has 8 bits; it
would cut deeper pixels down to their upper 8 bits, so ffmpeg's program decodes those.
"""

import contextlib
import functools
import itertools
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import cv2
import imageio_ffmpeg
import numpy as np

from input_pipeline.errors import DataError

log = logging.getLogger(__name__)

# What OpenCV calls the pixel formats that most videos have; about all others ffmpeg is asked.
_EIGHT_BITS = {cv2.VideoWriter.fourcc(*name) for name in (
    "I420", "Y800", "NV12", "Y42B", "444P", "RGB\x18", "BGR\x18", "RGBA", "BGRA", "PAL\x08", "G3\x00\x08")}
_COUNTED = (".mp4", ".mov", ".m4v", ".avi")  # Hold the number of their frames; others only how long they last.
_RETRIES = 10_000  # Attempts to decode after a frame that cannot be: at the end of a file each is over at once.
_UNSTEADY = 0.3  # Frames by which times may be off where frames come at one rate: some files round to milliseconds.


class Capture(Protocol):
  """A decoder that goes forward: the part of `cv2.VideoCapture` that is used here."""

  def grab(self) -> bool:
    """Goes on by one frame; False where it cannot be decoded, or at the end."""

  def read(self) -> tuple[bool, np.ndarray | None]:
    """`grab`, and the frame."""

  def release(self):
    """Closes the file."""


class Scan(NamedTuple):
  """What there is in a video.

  Attributes:
    place: int [M], the numbers of the frames that can be decoded, in order.
    times: float64 [N], seconds of each frame since the first; None where the video does not know.
    announced: N, the number of frames that it announces, or M where that is more.
  """

  place: np.ndarray
  times: np.ndarray | None
  announced: int


def open_capture(path: str) -> Capture:
  """A decoder at the first frame; raises DataError for a file that is no video."""
  capture = _open(path)
  if not _is_deep(capture, path):
    return capture
  size = tuple(int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
  capture.release()
  return _DeepCapture(path, size)


class Decoder:
  """The frames of a video that can be decoded, counted without those that cannot."""

  def __init__(self, path: str):
    self._path, self._capture, self._next = path, None, 0

  def read(self, number: int, patience: int = _RETRIES) -> np.ndarray | None:
    """Decodable frame `number` as it comes from the decoder; None when there is none.

    Args:
      number: going forward is cheap, going back starts again from the first frame.
      patience: how many frames in a row that cannot be decoded are passed over.
    """
    if self._capture is None or number < self._next:
      self.close()
      self._capture, self._next = open_capture(self._path), 0
    while self._next < number:
      if not any(self._capture.grab() for _ in range(patience + 1)):
        return None
      self._next += 1
    for _ in range(patience + 1):
      read, image = self._capture.read()
      if read:
        self._next += 1
        return image
    return None

  def close(self):
    if self._capture is not None:
      self._capture.release()
    self._capture = None


def decoded(path: str) -> Iterator[np.ndarray]:
  """The frames of a video that can be decoded, in order, as they come from the decoder."""
  with contextlib.closing(Decoder(path)) as decoder:
    for number in itertools.count():
      image = decoder.read(number)
      if image is None:
        return
      yield image


def header(path: str) -> tuple[int, tuple[int, int]]:
  """The number of frames that a video announces, and the (width, height) of its frames as stored."""
  capture = _open(path)
  announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
  size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
  if turned := int(capture.get(cv2.CAP_PROP_ORIENTATION_META)):
    log.info("%s: asks to be turned by %d degrees when it is shown; its pixels are read as stored, and boxes count in "
             "those", path, turned)
  capture.release()
  return announced, size


def scan(path: str) -> Scan:
  """Decodes a whole video to see which of its frames are there.

  Where some are not, the others keep their places if the frames come at one rate, since their times tell these. In a
  video of varying rate what is missing counts as missing at the end.
  """
  capture = _open(path)
  announced, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
  times, failures = [], 0
  while failures <= min(max(announced - len(times), 0), _RETRIES):
    if capture.grab():
      times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
      failures = 0
    else:
      failures += 1
  capture.release()
  if len(times) < announced and not path.lower().endswith(_COUNTED) and _is_whole(path, len(times)):
    announced = len(times)  # It lasts longer by a pause, or by its sound.
  return _placed(np.array(times), announced, rate if np.isfinite(rate) and rate > 0 else 0.0)


def _is_whole(path: str, count: int) -> bool:
  """Whether a video holds `count` frames, decodable or not, and its container is undamaged."""
  listing = ["-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"]  # A line for each frame, not decoded.
  done = subprocess.run([_ffmpeg(), "-v", "error", "-i", _url(path), *listing], stdin=subprocess.DEVNULL,
                        capture_output=True, check=False)
  packets = [line for line in done.stdout.splitlines() if not line.startswith(b"#")]
  return done.returncode == 0 and not done.stderr and len(packets) == count


def _placed(times: np.ndarray, announced: int, rate: float) -> Scan:
  """A scan from the times [M] of the frames that could be decoded, in seconds, and the usual frames per second or 0."""
  count, numbers = len(times), np.round(times * rate)
  announced = max(announced, count)
  increasing = bool(count) and bool((np.diff(times) >= 0).all()) and (count == 1 or times[-1] > times[0])
  steady = increasing and bool(rate) and bool((np.abs(times * rate - numbers) <= _UNSTEADY).all())
  steady = steady and bool((np.diff(numbers) > 0).all())
  place = numbers.astype(int) if steady and count < announced and numbers[-1] < announced else np.arange(count)
  if not count or not (rate or increasing):
    return Scan(place, None, announced)
  seconds = numbers / rate if steady else times if increasing else place / rate
  every = np.arange(announced)
  known = np.interp(every, place, seconds - seconds[0])
  # Before the first frame that can be decoded and behind the last, the others are as far apart as they usually are.
  outside = np.minimum(every, place[0]) + np.maximum(every - place[-1], 0)
  return Scan(place, known + outside / rate if rate else known, announced)


def _open(path: str) -> cv2.VideoCapture:
  # As bytes: a name that is no text in UTF-8 would crash OpenCV.
  capture = cv2.VideoCapture(os.fsencode(path))
  if not capture.isOpened():
    raise DataError(f"{path}: not a readable video")
  capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
  return capture


def _is_deep(capture: cv2.VideoCapture, path: str) -> bool:
  """Whether a video's pixels have more than 8 bits."""
  if int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) in _EIGHT_BITS:
    return False
  told = subprocess.run([_ffmpeg(), "-hide_banner", "-i", _url(path)], stdin=subprocess.DEVNULL, capture_output=True,
                        check=False).stderr.decode(errors="replace")
  streams = re.findall(r"Video: .*", told)
  names = re.findall(r"\b[a-z][a-z0-9]+\b", streams[0]) if streams else []
  return max((_depths()[name] for name in names if name in _depths()), default=8) > 8


@functools.cache
def _depths() -> dict[str, int]:
  """The bits of a pixel's deepest channel by ffmpeg's names of pixel formats."""
  listed = subprocess.run([_ffmpeg(), "-v", "error", "-pix_fmts"], stdin=subprocess.DEVNULL, capture_output=True,
                          check=False).stdout.decode()
  rows = re.findall(r"^[IOHPB.]{5} (\w+) +\d+ +\d+ +([\d-]+)$", listed, re.MULTILINE)
  return {name: max(map(int, depths.split("-"))) for name, depths in rows}


def _ffmpeg() -> str:
  try:
    return imageio_ffmpeg.get_ffmpeg_exe()
  except RuntimeError as error:
    raise DataError(f"ffmpeg is needed to read this video and was not found ({error})") from error


def _url(path: str) -> bytes:
  return b"file:" + os.fsencode(path)  # Also for names that look like an option or a protocol.


class _DeepCapture:
  """Frames of more than 8 bits as uint16 [H, W], by ffmpeg's program."""

  _process = None

  def __init__(self, path: str, size: tuple[int, int]):
    self._size = size
    self._process = subprocess.Popen(
        [_ffmpeg(), "-v", "quiet", "-noautorotate", "-i", _url(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-f",
         "rawvideo", "-pix_fmt", "gray16le", "pipe:1"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

  def grab(self) -> bool:
    return self.read()[0]

  def read(self) -> tuple[bool, np.ndarray | None]:
    height, width = self._size
    data = self._process.stdout.read(height * width * 2)
    if len(data) < height * width * 2:
      return False, None
    return True, np.frombuffer(data, "<u2").reshape(height, width)

  def release(self):
    self._process.kill()
    self._process.stdout.close()
    self._process.wait()

  def __del__(self):
    if self._process is not None:
      self.release()
