"""Opening a video, and what a pass through it finds: how many frames it announces, which can be decoded, and when.

Pixels are read as stored: a video that asks to be turned when it is shown is not. OpenCV decodes most videos. What it
reads wrongly (deeper than 8 bits: only their upper bits; interlaced: whatever was in memory) or not at all (AV1),
ffmpeg's program decodes.
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

from input_pipeline.errors import UserError

log = logging.getLogger(__name__)

_EDITED = (".mp4", ".mov", ".m4v")  # Hold the number of their frames, and may leave some of them out.
_COUNTED = (".avi",)  # Hold the number of their frames, with empty ones where a frame was dropped when recording.
_RETRIES = 10_000  # Attempts to decode after a frame that cannot be: at the end of a file each is over at once.
_UNSTEADY = 0.3  # Frames by which times may be off where frames come at one rate: some files round to milliseconds.
_DAMAGE = re.compile(r"corrupt|error|invalid|conceal|truncat|prematurely|overread|no JPEG|EOI missing|unavailable|"
                     r"illegal|non-existing|damag|exceeds|ac-tex|slice mismatch|missing picture", re.IGNORECASE)
_HARMLESS = re.compile(r"muxer|deprecated", re.IGNORECASE)


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
    resized: the numbers of frames whose size is not the first one's.
    damage: what the decoder says of damage that it conceals, and of any other; empty where there is none.
  """

  place: np.ndarray
  times: np.ndarray | None
  announced: int
  resized: frozenset[int] = frozenset()
  damage: str = ""


def open_capture(path: str) -> Capture:
  """A decoder at the first frame; raises UserError for a file that is no video."""
  capture = _open(path)
  pixel_format = _format_for_ffmpeg(path)
  if pixel_format is None:
    return capture
  shape = _shape(capture)
  capture.release()
  return _FfmpegCapture(path, shape, pixel_format)


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
  """The number of frames that a video announces, and the shape of its frames as stored, (rows, columns)."""
  capture = _open(path)
  announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
  shape = _shape(capture)
  if turned := int(capture.get(cv2.CAP_PROP_ORIENTATION_META)):
    log.info("%s: asks to be turned by %d degrees when it is shown; its pixels are read as stored, and boxes count in "
             "those", path, turned)
  capture.release()
  return announced, shape


def _shape(capture: cv2.VideoCapture) -> tuple[int, int]:
  return int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))


def scan(path: str) -> Scan:
  """Decodes a whole video to see which of its frames are there.

  Where some are not, the others keep their places if the frames come at one rate, since their times tell these. In a
  video of varying rate what is missing counts as missing at the end.
  """
  capture = _open(path)
  announced, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
  rate = rate if np.isfinite(rate) and rate > 0 else 0.0
  seen = _by_ffmpeg(path)
  times = seen.times if _format_for_ffmpeg(path) else _times(capture, announced)
  capture.release()
  if 0 < len(times) < announced and not seen.damage and _is_whole(path, announced, times[-1] * rate):
    announced = len(times)
  found = _placed(times, announced, rate)
  resized = np.flatnonzero(seen.sizes != seen.sizes[:1]) if len(seen.sizes) == len(times) else ()
  return found._replace(resized=frozenset(int(found.place[k]) for k in resized), damage=seen.damage)


def _times(capture: cv2.VideoCapture, announced: int) -> np.ndarray:
  """Seconds of all frames that OpenCV can decode, [M]."""
  times, failures = [], 0
  while failures <= min(max(announced - len(times), 0), _RETRIES):
    if capture.grab():
      times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
      failures = 0
    else:
      failures += 1
  return np.array(times)


class _Seen(NamedTuple):
  """What ffmpeg sees in a video: of the frames that it can decode, [M] their times in seconds and their sizes in bytes;
  and the first thing that it says of damage."""

  times: np.ndarray
  sizes: np.ndarray
  damage: str


def _by_ffmpeg(path: str, *before: str, after: tuple[str, ...] = ("-fps_mode", "passthrough", "-noautoscale")) -> _Seen:
  """Decodes a video; `before` and `after` its name there may be further options."""
  done = subprocess.run([_ffmpeg(), "-v", "warning", *before, "-i", _url(path), "-map", "0:v:0", *after, "-f",
                         "framecrc", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
  said = [line for line in done.stderr.decode(errors="replace").splitlines()
          if _DAMAGE.search(line) and not _HARMLESS.search(line)]
  lines = done.stdout.decode(errors="replace").splitlines()
  base = next((line.split()[-1].split("/") for line in lines if line.startswith("#tb")), ("0", "1"))
  frames = [[int(word) for word in line.split(",")[2:5]] for line in lines if line and not line.startswith("#")]
  table = np.array(frames, np.int64).reshape(-1, 3)
  times = table[:, 0] * int(base[0]) / int(base[1])
  return _Seen(times - times[:1], table[:, 2], re.sub(r"^(\[.*?\] *)+", "", said[0]) if said else "")


def _is_whole(path: str, announced: int, last: float) -> bool:
  """Whether an undamaged video with fewer frames than it announces lacks none.

  Args:
    path: of the video.
    announced: how many frames it announces.
    last: when the last one comes, in frames.
  """
  kind = os.path.splitext(path)[1].lower()
  if kind in _EDITED:  # By its edit list it shows fewer than it holds.
    held = _by_ffmpeg(path, "-ignore_editlist", "1", after=("-c", "copy"))
    return len(held.times) == announced
  return kind not in _COUNTED or round(last) == announced - 1  # Else it lasts longer by a pause, or by its sound.


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
    raise UserError(f"{path}: not a readable video")
  capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
  return capture


class _Kind(NamedTuple):
  """What ffmpeg says of the video that is read from a file, in a line, and whether its first frame is interlaced."""

  line: str
  interlaced: bool


def _kind(path: str) -> _Kind:
  state = os.stat(path)
  return _told(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _told(path: str, *_) -> _Kind:
  """See `_kind`; the further arguments tell files of one name apart."""
  # Not from the header: that a stream is interlaced stands there in some formats only.
  done = subprocess.run([_ffmpeg(), "-hide_banner", "-i", _url(path), "-map", "0:v:0", "-frames:v", "1", "-vf",
                         "showinfo", "-f", "null", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
  header, _, decoded = done.stderr.decode(errors="replace").partition("Stream mapping:")
  lines = [line for line in re.findall(r"Stream #.*?: (Video: .*)", header) if "(attached pic)" not in line]
  if len(lines) > 1:
    log.warning("%s: holds %d videos, of which the first is read", path, len(lines))
  return _Kind(lines[0] if lines else "", bool(re.search(r"showinfo.*\bi:[TB]\b", decoded)))


def _format_for_ffmpeg(path: str) -> str | None:
  """The pixel format by which ffmpeg has to decode a video; None where OpenCV does."""
  line, interlaced = _kind(path)
  depths = [_depths()[name] for name in re.findall(r"\b[a-z][a-z0-9]+\b", line) if name in _depths()]
  if max(depths, default=8) > 8:
    return "gray16le"
  return "gray" if interlaced or line.startswith("Video: av1") else None


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
    raise UserError(f"ffmpeg is needed to read this video and was not found ({error})") from error


def _url(path: str) -> bytes:
  return b"file:" + os.fsencode(path)  # Also for names that look like an option or a protocol.


class _FfmpegCapture:
  """Frames by ffmpeg's program, as uint16 [H, W] or, where the pixel format is "gray", uint8."""

  _process = None

  def __init__(self, path: str, shape: tuple[int, int], pixel_format: str):
    self._shape, self._type = shape, np.dtype("<u2" if pixel_format == "gray16le" else np.uint8)
    # By one thread: what several make of a damaged frame differs from time to time.
    self._process = subprocess.Popen(
        [_ffmpeg(), "-v", "quiet", "-noautorotate", "-threads", "1", "-i", _url(path), "-map", "0:v:0", "-fps_mode",
         "passthrough", "-f", "rawvideo", "-pix_fmt", pixel_format, "pipe:1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

  def grab(self) -> bool:
    return self.read()[0]

  def read(self) -> tuple[bool, np.ndarray | None]:
    length = self._shape[0] * self._shape[1] * self._type.itemsize
    data = self._process.stdout.read(length)
    if len(data) < length:
      return False, None
    return True, np.frombuffer(data, self._type).reshape(self._shape)

  def release(self):
    self._process.kill()
    self._process.stdout.close()
    self._process.wait()

  def __del__(self):
    if self._process is not None:
      self.release()
