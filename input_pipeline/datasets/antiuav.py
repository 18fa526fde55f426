"""Anti-UAV (RGB-T): `<sequence>/infrared.mp4` + `infrared.json`, or frames + `IR_label.json`.

Boxes are 0-based already. `visible.*` is not read. A file under another name (`infrared_pseudo.json`) is never taken
for truth.
"""

import pathlib

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError

LAYOUT = (
    "folders <sequence>/ with infrared.mp4 (or .avi, .mkv, .mov) or image files, and infrared.json or IR_label.json")
ORIGIN = 0
_LABEL_FILES = ("infrared.json", "IR_label.json")


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A folder with an infrared video, frames or a label file."""
  if not path.is_dir():
    return False
  labelled = any((path / name).is_file() for name in _LABEL_FILES)
  return labelled or bool(media.videos_in(path, "infrared") or media.images_in(path))


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences below a root, see `layout.walk`."""
  return layout.walk(root, frames, is_sequence)


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence in the folder `path`."""
  for name in _LABEL_FILES:
    if (path / name).is_file():
      return labels.read_json(path / name)
  raise labels.NoLabels(f"{path}: no labels, expected {' or '.join(_LABEL_FILES)}")


def find_media(path: pathlib.Path) -> media.Media:
  """`infrared.<video>`, else the images in `infrared/`, else the images in the folder."""
  videos = media.videos_in(path, "infrared")
  if len(videos) > 1:
    raise UserError(f"{path}: expected one infrared video, found {' and '.join(video.name for video in videos)}")
  images = media.images_in(path / "infrared") or media.images_in(path)
  if not videos and not images:
    raise UserError(f"{path}: no frames, expected infrared.mp4 (or .avi, .mkv, .mov) or image files")
  return videos[0] if videos else images
