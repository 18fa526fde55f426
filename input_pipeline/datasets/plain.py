"""Plain: a folder of frames or a video, with `groundtruth.txt` beside it (`x,y,w,h` per line, 0-based).

A sequence is a folder with images (in it or in its `img`) or with one video, labelled by its `groundtruth.txt`; or a
video among others, labelled by `<video's name>.txt`. Without frames, those text files are enough. Unlabelled
footage cannot be loaded as a sequence (it would claim that the target is never there): `open_frames` reads it.
"""

import pathlib

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError

LAYOUT = "image files or a video, or folders of them, each with groundtruth.txt (or <video>.txt) beside"
ORIGIN = 0
_LABELS = "groundtruth.txt"


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A video, or a folder with images, with one video, or with labels; without frames also a text file."""
  if path.is_dir():
    labelled = (path / _LABELS).is_file()
    return labelled or (len(media.videos_in(path)) == 1 and not _has_folders(path)) or bool(_images(path))
  return media.is_video(path) or (not frames and path.suffix.lower() == ".txt")


def find_labels(path: pathlib.Path) -> pathlib.Path | None:
  """The label file of a sequence, or None when it has none."""
  if path.suffix.lower() == ".txt" and not path.is_dir():
    return path
  if path.is_dir():
    files = [path / _LABELS] + [video.with_suffix(".txt") for video in _only_video(path)]
  else:
    files = [path.with_suffix(".txt")] + ([path.parent / _LABELS] if _only_video(path.parent) else [])
  return next((file for file in files if file.is_file()), None)


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences below a root, see `layout.walk`."""
  return layout.walk(root, frames, is_sequence)


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence `path` (folder, video or text file)."""
  file = find_labels(path)
  if file is None:
    beside = path / _LABELS if path.is_dir() else path.with_suffix(".txt")
    raise labels.NoLabels(f"{path}: no labels, expected {beside} with one x,y,w,h per frame")
  return labels.read_text(file)


def find_media(path: pathlib.Path) -> media.Media:
  """The video itself, the images of the folder, or the one video in it."""
  if media.is_video(path):
    return path
  found = _images(path) or _only_video(path)
  if not found:
    raise UserError(f"{path}: no frames, expected image files or one video")
  return found[0] if media.is_video(found[0]) else found


def _images(folder: pathlib.Path) -> list[pathlib.Path]:
  return media.images_in(folder) or media.images_in(folder / "img")


def _only_video(folder: pathlib.Path) -> list[pathlib.Path]:
  videos = media.videos_in(folder)
  return videos if len(videos) == 1 else []


def _has_folders(folder: pathlib.Path) -> bool:
  return any(path.is_dir() for path in media.entries(folder))
