"""Finding and opening the frames of a sequence: a video file, or image files in natural order."""

import collections
import logging
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from input_pipeline import tiff, videos
from input_pipeline.errors import UserError
from input_pipeline.frames import IMAGE_SUFFIXES, VIDEO_SUFFIXES, FrameSource, ImageFiles, VideoFile
from input_pipeline.sequences import FrameShape

log = logging.getLogger(__name__)

_DIGITS = re.compile(r"(\d+)")
_DECIMALS = re.compile(r"(\d+(?:[.,]\d+)?)")


def natural_key(name: str):
  """Sorts digit runs by their value: frame2 before frame10. Names that are equal so (1, 01) go by their text."""
  parts = _DIGITS.split(name)  # Text at even places, digits at odd ones, so that like is compared with like.
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _decimal_key(name: str):
  """The same with decimal fractions: t0.25 after t0.125."""
  parts = _DECIMALS.split(name)
  return [_number(part) if i % 2 else part for i, part in enumerate(parts)], name


def _number(text: str) -> tuple[int, str]:
  """A decimal number as what compares like it, whatever its length: digits of fractions compare as text."""
  whole, _, fraction = text.replace(",", ".").partition(".")
  return int(whole), fraction.rstrip("0")


def in_order(names: Iterable[str]) -> list[str]:
  """File names by their numbers, which are decimal where they can be: t0.125, t0.25, t0.5, but take1.9, take1.10.

  A number of which a point and digits follow is decimal unless some names show that it is not: a fraction of several
  digits that ends in a zero, beside fractions of another length. (Nobody writes 1.10 for 1.1 there.)
  """
  names = list(names)
  numbers = [number for name in names for number in _DECIMALS.findall(os.path.splitext(name)[0])]
  fractions = {number.replace(",", ".").partition(".")[2] for number in numbers} - {""}
  counted = len({len(part) for part in fractions}) > 1 and any(len(p) > 1 and p.endswith("0") for p in fractions)
  return sorted(names, key=natural_key if counted else _decimal_key)


def entries(folder) -> list[pathlib.Path]:
  """What a folder holds, by the numbers in the names (`in_order`), without hidden files (.DS_Store, ._frame.jpg)."""
  try:
    names = os.listdir(folder)
  except OSError as error:
    raise UserError(f"{folder}: cannot be listed ({error.strerror or error})") from error
  return [pathlib.Path(folder, name) for name in in_order(names) if not name.startswith(".")]


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
  """The images whose number (the last digits of the name) is from `first` to `last`; UserError when there is none."""
  numbers = [_DIGITS.findall(path.stem) for path in images]
  chosen = [path for path, found in zip(images, numbers, strict=True) if found and first <= int(found[-1]) <= last]
  if not chosen:
    raise UserError(f"{images[0].parent}: no image has a number from {first} to {last}, expected the frames of the "
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


def open_media(media, expected: int | None = None) -> tuple[FrameSource, FrameShape]:
  """Opens frames lazily.

  Args:
    media: the path of a video, or a list of image paths in frame order.
    expected: the number of labels. A video whose header promises as many is taken at its word (a missing frame is
      then reported when it is read); otherwise the frames are counted by decoding, since headers can be wrong.

  Returns:
    The frames and the shape of the first one.

  Raises:
    UserError: a video or a first image that cannot be decoded.
  """
  if isinstance(media, (list, tuple)):
    frames = ImageFiles(media)
    return frames, FrameShape(*frames[0].shape)
  path = os.fspath(media)
  promised, shape = videos.header(path)
  if promised == expected:
    return VideoFile(path, num_frames=expected), FrameShape(*shape)
  frames = VideoFile(path)
  if not any(isinstance(frame, np.ndarray) for frame in frames.readable()):
    raise UserError(f"{media}: no frame of the video can be decoded")
  return frames, FrameShape(*shape)


def open_frames(path) -> FrameSource:
  """The frames of a video file, of a TIFF file with pages, or of a folder of images (natural order), without labels.

  Raises:
    UserError: no such path, a folder without images, a file that is no video, a video without frames.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise UserError(f"{path}: no such file or folder, expected a video or a folder of images")
  if not path.is_dir():
    if path.suffix.lower() in tiff.SUFFIXES:
      return open_media([path])[0]
    if not is_video(path):
      kinds = ", ".join(VIDEO_SUFFIXES)
      raise UserError(f"{path}: expected a video ({kinds}), a TIFF file with a page per frame, or a folder of images")
    frames = open_media(path)[0]
    if damage := frames.damage():
      log.warning("%s", damage)
    return frames
  images = images_in(path)
  if not images:
    raise UserError(f"{path}: no images in this folder, expected {', '.join(IMAGE_SUFFIXES)} files")
  for trouble in naming_troubles(images):
    log.warning("%s: %s", path, trouble)
  return open_media(images)[0]


def naming_troubles(images) -> list[str]:
  """Sentences about names of images, in order, by which they are perhaps not the frames of one sequence."""
  return [text for text in (_several_patterns(images), _missing_numbers(images)) if text]


def _several_patterns(images) -> str:
  """About names that differ in more than their numbers: another series, copies, a background, other numbers."""
  patterns = collections.Counter(_DECIMALS.sub("#", path.stem) for path in images)
  if len(patterns) < 2:
    return ""
  (most, count), *others = patterns.most_common()
  other = next(path for path in images if _DECIMALS.sub("#", path.stem) == others[0][0])
  usual = next(path for path in images if _DECIMALS.sub("#", path.stem) == most)
  return (f"the names of the images follow {len(patterns)} patterns ({count} are like {usual.name}, others like "
          f"{other.name}); all of them are taken for frames, in the order of their numbers")


def _missing_numbers(images) -> str:
  """A sentence about numbers that are left out in the names of images in order; empty where none is.

  Numbers that always go on by the same step leave none out, nor do names that are not told apart by their last number.
  """
  numbers = [_DIGITS.findall(path.stem) for path in images]
  numbers = np.array([int(found[-1]) for found in numbers if found and len(found[-1]) < 16])
  steps = np.diff(numbers)
  if len(numbers) < len(images) or len(steps) < 2 or steps.min() < 1 or (steps == steps[0]).all():
    return ""
  step = int(np.median(steps))
  gaps = np.flatnonzero(steps > step)
  if (steps < step).any() or (steps % step).any() or not len(gaps):
    return ""
  left_out = int((steps[gaps] // step - 1).sum())
  return (f"the numbers of the images go from {numbers[0]} to {numbers[-1]} and leave {left_out} out, the first after "
          f"{images[gaps[0]].name}; what is there is taken for consecutive frames")
