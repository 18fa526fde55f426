"""LaSOT: `<class>/<class>-N/img/*.jpg`, `groundtruth.txt`, `full_occlusion.txt`, `out_of_view.txt`.

The sequence folders can also lie directly in the root. The root can also be a list (`testing_set.txt`, one name per
line) in the data set's folder: then those sequences are read. The two flag files hold one comma-separated line; the
target is absent where either flag is set (the paper's rule; the toolkit has one flag for both). A few boxes of the
data set have negative sizes and are taken as zero boxes. The top left pixel is (1, 1), by the benchmark's author
(HengLan/LaSOT_Evaluation_Toolkit, issue 14: "The smallest should be 1").

Without frames, that toolkit's `annos` is enough: `<sequence>.txt`, `absent/<sequence>.txt` (one flag per line), and 14
attribute flags in `att/<sequence>.txt` in the order of its `run_tracker_performance_evaluation.m`. Attributes are
also read where `annos` lies in the data set's folder.
"""

import dataclasses
import pathlib

import numpy as np

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError

LAYOUT = ("folders <class>/<class>-N/ (or <class>-N/) with img/ (image files), groundtruth.txt, full_occlusion.txt and "
          "out_of_view.txt")
ORIGIN = 1
ATTRIBUTES = ("IV", "POC", "DEF", "MB", "CM", "ROT", "BC", "VC", "SV", "FOC", "FM", "OV", "LR", "ARC")
_TRUTH = "groundtruth.txt"
_FLAGS = ("full_occlusion", "out_of_view")
_ANNOS, _ABSENT = "annos", "absent"
# The first and the last labelled image, where there are more images than labels (the toolkit's calc_seq_err_robust.m).
_RANGES = {"monkey-17": (1, 2260)}


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A folder with `img` or groundtruth.txt; without frames also a text file of the toolkit's `annos`."""
  if path.is_dir():
    return (path / "img").is_dir() or (path / _TRUTH).is_file()
  return not frames and path.suffix.lower() == ".txt" and _absent_file(path).is_file()


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences of all classes, of one class, of a list, or the one at the root."""
  if is_sequence(root, frames):
    return [layout.found_at(root)]
  if not root.is_dir():
    return [layout.found_at(_listed(root, name, frames)) for name in labels.read_names(root)]
  if not frames and (root / _ABSENT).is_dir():
    return _texts(root)
  found: list[layout.Found] = []
  for path in filter(layout.is_for_sequences, layout.linked_entries(root)):
    inside = [] if is_sequence(path, frames) else [p for p in layout.linked_entries(path) if p.is_dir()]
    found += map(layout.found_at, inside or [path])
  return found or ([] if frames or not (root / _ANNOS).is_dir() else _texts(root / _ANNOS))


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence in the folder `path`, or of the text file `path`, x and y made 0-based."""
  if path.is_dir():
    truth, files = path / _TRUTH, {name: path / f"{name}.txt" for name in _FLAGS}
    att = [folder / _ANNOS / "att" / f"{path.name}.txt" for folder in (path.parent, path.parent.parent)]
  else:
    truth, files = path, {_ABSENT: _absent_file(path)}
    att = [path.parent / "att" / path.name]
  if not truth.is_file():
    raise labels.NoLabels(f"{path}: no labels, expected {_TRUTH}")
  found = labels.without_negative_sizes(labels.read_text(truth))
  further = {name: labels.read_frame_labels(file) for name, file in files.items()}
  hidden = {len(values) for values in further.values()}
  if hidden != {len(found.boxes)}:
    raise UserError(f"{truth}: {len(found.boxes)} boxes and {' and '.join(map(str, sorted(hidden)))} flags in "
                    f"{' and '.join(file.name for file in files.values())}, expected as many")
  visible = ~np.any(list(further.values()), axis=0)
  attributes = next((labels.read_flags(file, ATTRIBUTES) for file in att if file.is_file()), ())
  return dataclasses.replace(labels.zero_based(found, ORIGIN), visible=visible, attributes=attributes,
                             frame_labels=further)


def find_media(path: pathlib.Path) -> list[pathlib.Path]:
  """The images in `img`."""
  images = media.images_in(path / "img")
  if not images:
    raise UserError(f"{path}: no frames, expected image files in {path / 'img'}")
  limits = _RANGES.get(path.name)
  if limits and len(images) != len(labels.text_lines(path / _TRUTH)):
    images = media.within(images, *limits)
  return images


def _listed(file: pathlib.Path, name: str, frames: bool) -> pathlib.Path:
  """The path of a sequence that a list names."""
  paths = [file.parent / name, file.parent / name.rpartition("-")[0] / name]
  if not frames:
    paths.append(file.parent / _ANNOS / f"{name}.txt")
  path = next((path for path in paths if path.exists()), None)
  if path is None:
    raise UserError(f"{file}: {name} is listed, but neither {paths[0]} nor {paths[1]} is there")
  return path


def _texts(annos: pathlib.Path) -> list[layout.Found]:
  return [layout.found_at(path) for path in layout.linked_entries(annos) if is_sequence(path, frames=False)]


def _absent_file(path: pathlib.Path) -> pathlib.Path:
  return path.parent / _ABSENT / path.name
