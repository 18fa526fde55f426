"""OTB and its relatives: `<sequence>/img/*.jpg` + `groundtruth_rect.txt` (or `groundtruth.txt`, `<sequence>.txt`).

These files are written by Matlab: the top left pixel is (1, 1). This reader subtracts 1 from x and y, so that boxes
are 0-based like everywhere else. A data set in the same layout with 0-based boxes is read as `plain`.

Oddities of the benchmark (the frame ranges and names are those of got-10k/toolkit, `datasets/otb.py`): in five
sequences only some of the images are labelled; Jogging and Skating2 have two targets, in `groundtruth_rect.1.txt` and
`groundtruth_rect.2.txt`, read as two sequences `Jogging.1` and `Jogging.2`; Human4's only labels are in
`groundtruth_rect.2.txt`, the other file is empty.
"""

import pathlib

from input_pipeline.datasets import labels, layout, media, otb_family

LAYOUT = "folders <sequence>/ with img/ (image files) and groundtruth_rect.txt or groundtruth.txt"
ORIGIN = 1
# The first and the last labelled image, by their numbers, where there are more images than labels.
_RANGES = {"david": (300, 770), "diving": (1, 215), "football1": (1, 74), "freeman3": (1, 460), "freeman4": (1, 283)}


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A folder with `img` or a label file, or one of the label files of a folder with several targets."""
  del frames
  if path.is_dir():
    return (path / "img").is_dir() or any(file.is_file() for file in otb_family.label_files(path)) or bool(
        _numbered(path))
  return path in _numbered(path.parent)


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences below a root, see `layout.walk`; each target of a folder with several is one."""
  return [target for one in layout.walk(root, frames, is_sequence) for target in _targets(one)]


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence in the folder `path`, or of the label file `path`, x and y made 0-based."""
  return labels.zero_based(labels.read_text(_label_file(path)), ORIGIN)


def find_media(path: pathlib.Path) -> list[pathlib.Path]:
  """The images in `img`, else those in the folder."""
  folder = path if path.is_dir() else path.parent
  images = otb_family.find_media(folder)
  limits = _RANGES.get(folder.name.lower())
  if limits and len(images) != len(labels.text_lines(_label_file(path))):
    images = media.within(images, *limits)
  return images


def _label_file(path: pathlib.Path) -> pathlib.Path:
  if not path.is_dir():
    return path
  files = otb_family.label_files(path)
  file = next((file for file in files if file.is_file()), None)
  if file is None:
    raise labels.NoLabels(f"{path}: no labels, expected {' or '.join(file.name for file in files)}")
  return file


def _targets(one: layout.Found) -> list[layout.Found]:
  """The sequences in what `walk` takes for one."""
  if not one.path.is_dir() or any(file.is_file() for file in otb_family.label_files(one.path)):
    return [one]
  files = [file for file in _numbered(one.path) if labels.read_bytes(file).strip()]
  if len(files) == 1:
    return [one._replace(path=files[0])]
  return [one._replace(name=one.name + file.suffixes[-2], path=file) for file in files] or [one]


def _numbered(folder: pathlib.Path) -> list[pathlib.Path]:
  """groundtruth_rect.1.txt, groundtruth_rect.2.txt, ... of a folder."""
  return sorted(folder.glob("groundtruth_rect.[0-9].txt"))
