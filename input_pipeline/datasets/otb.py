"""OTB and its relatives: `<sequence>/img/*.jpg` + `groundtruth_rect.txt` (or `groundtruth.txt`, `<sequence>.txt`).

These files are written by Matlab: the top left pixel is (1, 1). This reader subtracts 1 from x and y, so that boxes
are 0-based like everywhere else. A data set in the same layout with 0-based boxes is read as `plain`.
"""

import dataclasses

import numpy as np

from input_pipeline.datasets import labels, media
from input_pipeline.errors import DataError

LAYOUT = "folders <sequence>/ with img/ (image files) and groundtruth_rect.txt or groundtruth.txt"


def is_sequence(path, frames):
  """A folder with `img` or a label file."""
  return path.is_dir() and ((path / "img").is_dir() or any(file.is_file() for file in _label_files(path)))


def read_labels(path):
  """Labels of the sequence in the folder `path`, x and y made 0-based."""
  file = next((file for file in _label_files(path) if file.is_file()), None)
  if file is None:
    raise DataError(f"{path}: no labels, expected {' or '.join(file.name for file in _label_files(path))}")
  found = labels.read_text(file)
  return dataclasses.replace(found, boxes=found.boxes - np.float32([1, 1, 0, 0]))


def find_media(path):
  """The images in `img`, else those in the folder."""
  images = media.images_in(path / "img") or media.images_in(path)
  if not images:
    raise DataError(f"{path}: no frames, expected image files in {path / 'img'}")
  return images


def _label_files(path):
  return [path / name for name in ("groundtruth_rect.txt", "groundtruth.txt", f"{path.name}.txt")]
