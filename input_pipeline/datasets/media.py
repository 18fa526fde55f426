"""Finding and opening the frames of a sequence: a video file, or image files in natural order."""

import os
import pathlib
import re
import unicodedata

import cv2

from input_pipeline.errors import DataError
from input_pipeline.frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES, FrameSource, ImageFiles, VideoFile

_DIGITS = re.compile(r"(\d+)")


def natural_key(name: str):
  """Sorts digit runs by their value: frame2 before frame10. Names that are equal so (1, 01) go by their text."""
  parts = _DIGITS.split(name)  # Text at even places, digits at odd ones, so that like is compared with like.
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def entries(folder) -> list[pathlib.Path]:
  """What a folder holds, in natural order, without hidden files (.DS_Store, ._frame.jpg)."""
  try:
    names = os.listdir(folder)
  except OSError as error:
    raise DataError(f"{folder}: cannot be listed ({error.strerror or error})") from error
  return [pathlib.Path(folder, name) for name in sorted(names, key=natural_key) if not name.startswith(".")]


def is_image(path: pathlib.Path) -> bool:
  """By its suffix alone: a data set has 10^5 of them, and what cannot be read is reported when it is."""
  return path.suffix.lower() in IMAGE_SUFFIXES


def is_video(path: pathlib.Path) -> bool:
  """By its suffix."""
  return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def images_in(folder) -> list[pathlib.Path]:
  """The image files of a folder in natural order; empty when there is no such folder."""
  return [path for path in entries(folder) if is_image(path)] if os.path.isdir(folder) else []


def within(images, first: int, last: int) -> list[pathlib.Path]:
  """The images whose number (the last digits of the name) is from `first` to `last`; DataError when there is none."""
  numbers = [_DIGITS.findall(path.stem) for path in images]
  chosen = [path for path, found in zip(images, numbers, strict=True) if found and first <= int(found[-1]) <= last]
  if not chosen:
    raise DataError(f"{images[0].parent}: no image has a number from {first} to {last}, expected the frames of the "
                    "benchmark")
  return chosen


def named(folder, name: str) -> pathlib.Path:
  """`folder/name`, or the file there whose name differs only in its Unicode form (composed, decomposed)."""
  path = pathlib.Path(folder, name)
  if path.exists() or name.isascii() or not path.parent.is_dir():
    return path
  composed = unicodedata.normalize("NFC", name)
  return next((other for other in entries(folder) if unicodedata.normalize("NFC", other.name) == composed), path)


def videos_in(folder, stem: str | None = None) -> list[pathlib.Path]:
  """The video files of a folder in natural order, all or those called `stem`."""
  return [path for path in entries(folder) if is_video(path) and stem in (None, path.stem)]


def open_media(media, expected: int | None = None) -> tuple[FrameSource, tuple[int, int]]:
  """Opens frames lazily.

  Args:
    media: the path of a video, or a list of image paths in frame order.
    expected: the number of labels. A video whose header promises as many is taken at its word (a missing frame is
      then reported when it is read); otherwise the frames are counted by decoding, since headers can be wrong.

  Returns:
    The frames and the (width, height) of the first one in pixels.

  Raises:
    DataError: a video or a first image that cannot be decoded.
  """
  if isinstance(media, (list, tuple)):
    frames = ImageFiles(media)
    height, width = frames[0].shape
    return frames, (width, height)
  capture = cv2.VideoCapture(os.fspath(media))
  promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
  size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
  opened = capture.isOpened()
  capture.release()
  frames = VideoFile(media, num_frames=expected if opened and expected is not None and promised == expected else None)
  if not len(frames):
    raise DataError(f"{media}: no frame of the video can be decoded")
  return frames, size


def open_frames(path) -> FrameSource:
  """The frames of a video file or of a folder of images (natural order), without labels.

  Raises:
    DataError: no such path, a folder without images, a file that is no video, a video without frames.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise DataError(f"{path}: no such file or folder, expected a video or a folder of images")
  if not path.is_dir():
    if not is_video(path):
      raise DataError(f"{path}: expected a video ({', '.join(VIDEO_SUFFIXES)}) or a folder of images")
    return open_media(path)[0]
  images = images_in(path)
  if not images:
    raise DataError(f"{path}: no images in this folder, expected {', '.join(IMAGE_SUFFIXES)} files")
  return open_media(images)[0]
