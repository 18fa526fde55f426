"""Where the frames of a sequence come from: image files, a video, or an array.

Every source yields single-channel frames, `uint8 [H, W]`, with the pixels as stored: nothing is turned, whatever a
file asks for (EXIF's orientation, a video's rotation). `grey` converts colour and deeper pixels. docs/inputs.md has
everything that is read, how, and what is refused.
"""

import collections
import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import cv2
import numpy as np

from input_pipeline import tiff, videos
from input_pipeline.errors import UserError
from input_pipeline.grey import ToGrey8

AnyPath = str | os.PathLike[str]  # Of a file or a folder, as a user gives it.

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
  """Random access to the frames of one sequence; the methods that do something suit sources of whole frames."""

  def __len__(self) -> int:
    """The number of frames."""

  def __getitem__(self, t: int) -> np.ndarray:
    """Frame `t` as uint8 [H, W]; raises UserError when it cannot be decoded. Safe to call from several threads."""

  def __iter__(self) -> Iterator[np.ndarray]:
    """All frames in order; the fast way to read a video. Errors as `__getitem__`."""
    return (self[t] for t in range(len(self)))

  def readable(self) -> Iterator[np.ndarray | UserError]:
    """For every frame in order itself or, where it cannot be decoded, the error that it gives."""
    for t in range(len(self)):
      try:
        yield self[t]
      except UserError as error:
        yield error

  def times(self) -> np.ndarray | None:
    """float64 [T], seconds of each frame since the first; None where the source does not know."""
    return None

  def damage(self) -> str:
    """A sentence about damage that decoding may hide, for which all frames are decoded; empty where none is known."""
    return ""

  def cutout(self, t: int) -> Cutout:
    """What is stored of frame `t`; errors as `__getitem__`."""
    return Cutout(self[t])

  def encoded(self, t: int) -> Encoded | None:
    """The same undecoded where it is stored as JPEG, so that a reader may decode only the rows it needs."""
    del t
    return None


class ImageFiles(FrameSource):
  """Frames from image files, in the order given; every page of a TIFF file is a frame."""

  def __init__(self, paths: Iterable[AnyPath]):
    """Raises UserError for files of several kinds: they would be taken for more frames than there are."""
    self.paths = tuple(os.fspath(path) for path in paths)
    where = self.paths[0] if len(self.paths) == 1 else os.path.dirname(self.paths[0]) if self.paths else ""
    kinds = collections.Counter(_kind(path) for path in self.paths)
    if len(kinds) > 1:
      counts = " and ".join(f"{count} {kind} files" for kind, count in sorted(kinds.items()))
      raise UserError(f"{where}: holds {counts}, expected frames of one kind; move the others elsewhere")
    # (number in `paths`, the page of a TIFF file) of every frame.
    self._places = [(i, page) for i, path in enumerate(self.paths) for page in _pages(path)]
    self._pages = collections.Counter(i for i, page in self._places if page)
    self._convert = ToGrey8(where, self._decodable)
    self._looked = False

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, t: int) -> np.ndarray:
    return self._convert(self._decode(t), t)

  def encoded(self, t: int) -> Encoded | None:
    if _kind(self.paths[self._places[t][0]]) != ".jpg":
      return None
    data = self._read(t)
    return Encoded(data.tobytes()) if _is_jpeg(data) else None

  def _read(self, t: int) -> np.ndarray:
    path = self.paths[self._places[t][0]]
    if os.path.exists(path) and not os.path.isfile(path):  # Nobody may ever write into a pipe.
      raise UserError(f"{path}: is no file, expected an image")
    try:
      data = np.fromfile(path, np.uint8)
    except OSError as error:
      raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data.size or (_is_jpeg(data) and not _has_end(data)):
      raise UserError(_unreadable(path, data.size))
    return data

  def _decode(self, t: int) -> np.ndarray:
    number, page = self._places[t]
    path = self.paths[number]
    if page == _LOST:
      raise UserError(f"{path}: not a readable image (truncated or corrupt TIFF file, {self._pages[number] - 1} pages "
                      "of it can be read)")
    if page and self._pages[number] > 1:  # Only this page is read. (OpenCV takes bytes, its types do not say so.)
      found, images = cv2.imreadmulti(os.fsencode(path), page.number, 1,  # type: ignore[call-overload]
                                      flags=cv2.IMREAD_UNCHANGED)
      if not found:
        raise UserError(f"{path}: its page {page.number + 1} is not a readable image (truncated or corrupt)")
      return page.as_stored(images[0])
    data = self._read(t)
    # Of a JPEG the luma that the file stores, not computed back from its colours.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if _is_jpeg(data) else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(data, flags)
    if image is None:
      raise UserError(_unreadable(path, data.size))
    if b"acTL" in data[:64].tobytes():  # The chunk by which a PNG file is animated comes before its pixels.
      raise UserError(f"{path}: an animated PNG file, of which only the first image would be read; expected an image "
                      "file for each frame, or a video")
    if not self._looked:
      self._looked = True
      self._look(data, page)
    return page.as_stored(image) if page else image

  def _decodable(self) -> Iterator[np.ndarray]:
    for t in range(len(self)):
      with contextlib.suppress(UserError):
        yield self._decode(t)

  def _look(self, data: np.ndarray, page: tiff.Page | None) -> None:
    """Says what is not taken over from the first file that is read."""
    coloured = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if _is_jpeg(data) else None
    if coloured is not None and coloured.ndim == 3:
      self._convert.say("colour", "colour frames, converted to grey")
    if page:
      turned = page.orientation != 1
    else:
      shown, stored = (cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | flag) for flag in (0, cv2.IMREAD_IGNORE_ORIENTATION))
      turned = shown is not None and stored is not None and not np.array_equal(shown, stored)
    if turned:
      self._convert.say("turned", "the images ask to be turned when they are shown (EXIF orientation); their pixels "
                                  "are read as stored, and boxes count in those")


_LOST = tiff.Page(-1)  # What a file announces behind its last page that can be found.


def _pages(path: str) -> list[tiff.Page | None]:
  """The frames that a file holds: pages of a TIFF file, or itself."""
  if _kind(path) not in tiff.SUFFIXES:
    return [None]
  found, whole = tiff.pages(path)
  if not found:  # It is no TIFF file, or is read in vain.
    return [None]
  return [*found, *([] if whole else [_LOST])]


def _kind(path: str) -> str:
  suffix = os.path.splitext(path)[1].lower()
  return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)


def _is_jpeg(data: np.ndarray) -> bool:
  """By its first bytes: a file's name may be wrong."""
  return data[:2].tobytes() == b"\xff\xd8"


def _has_end(data: np.ndarray) -> bool:
  """Whether a JPEG's data end with its end marker: libjpeg fills what is missing of a cut file with grey."""
  if b"\xff\xd9" in data[-64:].tobytes():
    return True
  content = data.tobytes()  # A camera may have written something behind; a preview's marker comes before the data.
  return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _unreadable(path: str, size: int) -> str:
  return f"{path}: not a readable image (truncated or corrupt, {size} bytes)"


class VideoFile(FrameSource):
  """Frames from a video file. Going forward is cheap; going back starts the decoder again from the first frame.

  Its length is the number of frames that it announces, or that it holds where these are more. A frame that is damaged
  or beyond a file's end keeps its place and raises UserError when it is read.
  """

  def __init__(self, path: AnyPath, num_frames: int | None = None):
    """`num_frames`: how many frames to expect; None looks how many there are (decodes the whole video)."""
    self.path = os.fspath(path)
    self._lock = threading.Lock()
    self._decoder = videos.Decoder(self.path)
    self._convert = ToGrey8(self.path, lambda: videos.decoded(self.path))
    self._found: videos.Scan | None = None
    if not os.path.isfile(self.path):
      raise UserError(f"{self.path}: no such video file")
    self._length = self._scanned().announced if num_frames is None else num_frames

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, t: int) -> np.ndarray:
    if not 0 <= t < len(self):
      raise IndexError(t)
    with self._lock:
      frame = self._read(self._decoder, t)
    if isinstance(frame, UserError):
      raise frame
    return frame

  def __iter__(self) -> Iterator[np.ndarray]:
    for frame in self.readable():
      if isinstance(frame, UserError):
        raise frame
      yield frame

  def readable(self) -> Iterator[np.ndarray | UserError]:
    with contextlib.closing(videos.Decoder(self.path)) as decoder:
      for t in range(len(self)):
        yield self._read(decoder, t)

  def times(self) -> np.ndarray | None:
    times = self._scanned().times
    return None if times is None or len(times) < len(self) else times[:len(self)]

  def damage(self) -> str:
    said = self._scanned().damage
    return f"{self.path}: the video is damaged ({said}); frames from there on may be wrong" if said else ""

  def _scanned(self) -> videos.Scan:
    self._found = self._found or videos.scan(self.path)
    return self._found

  def _read(self, decoder: videos.Decoder, t: int) -> np.ndarray | UserError:
    if self._found is None:  # As long as every frame can be decoded nobody needs to know which cannot.
      image = decoder.read(t, patience=0)
      if image is not None:
        return self._convert(image, t)
    found = self._scanned()
    place = found.place
    number = int(np.searchsorted(place, t))
    image = decoder.read(number) if number < len(place) and place[number] == t else None
    if t in found.resized:
      return UserError(f"{self.path}: frame {t} of the video has another size than the first")
    if image is not None:
      return self._convert(image, t)
    counts = f"{found.announced} announced, {len(place)} decoded"
    if number < len(place):
      return UserError(f"{self.path}: frame {t} of the video cannot be decoded ({counts})")
    last = int(place[-1]) + 1 if len(place) else 0
    unknown = ", some perhaps missing before" if found.damage and len(place) == last else ""
    return UserError(f"{self.path}: the video ends after {last} frames, {len(self)} were expected ({counts}{unknown})")


class ArrayFrames(FrameSource):
  """Frames held in memory, uint8 [T, H, W]."""

  def __init__(self, frames: np.ndarray):
    self._frames = frames

  def __len__(self) -> int:
    return len(self._frames)

  def __getitem__(self, t: int) -> np.ndarray:
    return self._frames[t]

  def __iter__(self) -> Iterator[np.ndarray]:
    return iter(self._frames)


class ChangedFrames(FrameSource):
  """The frames of another source, changed one by one."""

  def __init__(self, frames: FrameSource, change: Callable[[np.ndarray, int], np.ndarray]):
    """`change`: (frame uint8 [H, W], its number) -> uint8 [H', W'], the same whenever it is called."""
    self._frames, self._change = frames, change

  def __len__(self) -> int:
    return len(self._frames)

  def __getitem__(self, t: int) -> np.ndarray:
    return self._change(self._frames[t], t)

  def __iter__(self) -> Iterator[np.ndarray]:
    return (self._change(frame, t) for t, frame in enumerate(self._frames))

  def readable(self) -> Iterator[np.ndarray | UserError]:
    for t, frame in enumerate(self._frames.readable()):
      yield frame if isinstance(frame, UserError) else self._change(frame, t)

  def times(self) -> np.ndarray | None:
    return self._frames.times()

  def damage(self) -> str:
    return self._frames.damage()
