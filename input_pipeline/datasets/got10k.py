"""GOT-10k: `<split>/list.txt`, `<sequence>/%08d.jpg`, `groundtruth.txt`, three label files and `meta_info.ini`.

Where a folder of sequences has a `list.txt`, exactly the sequences it names are read. The top left pixel is (1, 1), by
the benchmark's author (got-10k/toolkit, issue 6: "All coordinate values are 1-based"). An absent target is written as
-1,-1,-1,-1 or with a zero size (issue 10); it is also absent where `absence.label` is 1 or `cover.label` is 0 (nothing
of it is to be seen). `cover.label` (0 to 8), `absence.label` and `cut_by_image.label` become `Sequence.frame_labels`,
and the line `resolution: (width, height)` of `meta_info.ini` becomes `Sequence.shape`. Data in the same layout without
these files can be read too. The benchmark keeps the truth of its test split to itself.
"""

import collections
import dataclasses
import re

import numpy as np

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape

LAYOUT = "folders <split>/<sequence>/ with image files and groundtruth.txt, listed in <split>/list.txt"
ORIGIN = 1
_TRUTH = "groundtruth.txt"
_LIST = "list.txt"
_HIGHEST = {"absence": 1, "cover": 8, "cut_by_image": 1}  # By the names of the label files.
_RESOLUTION = re.compile(r"\s*resolution\s*[:=]\s*(.*)")


def is_sequence(path, frames):
  """A folder with groundtruth.txt or image files."""
  del frames
  return path.is_dir() and ((path / _TRUTH).is_file() or bool(media.images_in(path)))


def find(root, frames):
  """The sequences below a root, see `layout.walk`, without those that a `list.txt` leaves out."""
  if is_sequence(root, frames):
    return [layout.found_at(root)]
  by_folder = collections.defaultdict(list)
  for one in layout.walk(root, frames, is_sequence):
    by_folder[one.path.parent].append(one)
  return [one for folder, here in by_folder.items() for one in _listed(folder / _LIST, here)]


def read_labels(path):
  """Labels of the sequence in the folder `path`, x and y made 0-based."""
  if not (path / _TRUTH).is_file():
    raise labels.NoLabels(f"{path}: no labels, expected {_TRUTH}")
  found = labels.without_negative_sizes(labels.read_text(path / _TRUTH))
  if len(found.boxes) == 1 and (path.parent.name == "test" or len(media.images_in(path)) > 1):
    raise UserError(f"{path / _TRUTH}: only the first frame has a box, as in the test split of GOT-10k, whose truth is "
                    "not public; expected one per frame (use the val split)")
  further = {name: labels.read_frame_labels(path / f"{name}.label", highest)
             for name, highest in _HIGHEST.items() if (path / f"{name}.label").is_file()}
  return dataclasses.replace(labels.zero_based(found, ORIGIN), visible=_visible(path, further), shape=_shape(path),
                             frame_labels=further)


def find_media(path):
  """The images of the folder."""
  images = media.images_in(path)
  if not images:
    raise UserError(f"{path}: no frames, expected image files")
  return images


def _listed(file, here):
  """The sequences of one folder that its list names; all without a list."""
  if not file.is_file():
    return here
  listed = set(labels.read_names(file))
  missing = sorted(listed - {layout.composed(one.name) for one in here})
  if missing:
    raise UserError(f"{file}: {missing[0]} is listed, but there is no such folder beside the list ({len(missing)} of "
                    f"{len(listed)} are missing)")
  return [one for one in here if layout.composed(one.name) in listed]


def _visible(path, further):
  """bool [T]; None when there are no labels on it."""
  flags = [further[name] != hidden for name, hidden in (("absence", 1), ("cover", 0)) if name in further]
  if len({len(flag) for flag in flags}) > 1:
    raise UserError(f"{path}: {len(flags[0])} labels in absence.label and {len(flags[1])} in cover.label, expected "
                    "as many")
  return np.logical_and.reduce(flags) if flags else None


def _shape(path):
  """The frames' shape from meta_info.ini; None when it is not there or does not say it."""
  file = path / "meta_info.ini"
  lines = labels.text_lines(file) if file.is_file() else []
  found = [match[1] for match in map(_RESOLUTION.fullmatch, lines) if match]
  if not found:
    return None
  size = re.fullmatch(r"\(\s*(\d{1,6})\s*,\s*(\d{1,6})\s*\)\s*", found[0], re.ASCII)
  if size is None:
    raise UserError(f"{file}: the resolution is {found[0][:60]!r}, expected (width, height)")
  return FrameShape(rows=int(size[2]), columns=int(size[1]))
