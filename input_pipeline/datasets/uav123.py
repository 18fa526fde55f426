"""UAV123 and UAV20L: `anno/<set>/<sequence>.txt` and `data_seq/<set>/<folder>/%06d.jpg`.

A sequence is an annotation file: the root is the data set's folder (both sets), `anno/UAV123`, `anno/UAV20L`, or one
file. Several sequences are parts of one folder's frames, and some frames belong to two of them; UAV20L uses the
folders of UAV123 whole. The frame ranges are those of the data set's configSeqs.m as got-10k/toolkit lists them
(`datasets/uav123.json`). An absent target is a line of NaN. `anno/<set>/att/<sequence>.txt` has 12 flags, in the order
of the data set's DatasetAnnotation.pdf. The data set is made for OTB's Matlab toolkit: the top left pixel is (1, 1).
"""

import dataclasses
import pathlib

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError

LAYOUT = "anno/UAV123/ or anno/UAV20L/ with <sequence>.txt files, beside data_seq/UAV123/ with folders of image files"
ORIGIN = 1
ATTRIBUTES = ("SV", "ARC", "LR", "FM", "FOC", "POC", "OV", "BC", "IV", "VC", "CM", "SOB")
# By folder: the first and last frame of its sequences <folder>_1, <folder>_2, ...
_RANGES = {
    "bird1": ((1, 253), (775, 1477), (1573, 2437)),
    "car1": ((1, 751), (751, 1627), (1627, 2629)),
    "car6": ((1, 487), (487, 1807), (1807, 2953), (2953, 3925), (3925, 4861)),
    "car8": ((1, 1357), (1357, 2575)),
    "car16": ((1, 415), (415, 1993)),
    "group1": ((1, 1333), (1333, 2515), (2515, 3925), (3925, 4873)),
    "group2": ((1, 907), (907, 1771), (1771, 2683)),
    "group3": ((1, 1567), (1567, 2827), (2827, 4369), (4369, 5527)),
    "person2": ((1, 1189), (1189, 2623)),
    "person4": ((1, 1501), (1501, 2743)),
    "person5": ((1, 877), (877, 2101)),
    "person7": ((1, 1249), (1249, 2065)),
    "person8": ((1, 1075), (1075, 1525)),
    "person12": ((1, 601), (601, 1621)),
    "person14": ((1, 847), (847, 1813), (1813, 2923)),
    "person17": ((1, 1501), (1501, 2347)),
    "person19": ((1, 1243), (1243, 2791), (2791, 4357)),
    "truck4": ((1, 577), (577, 1261)),
    "uav1": ((1, 1555), (1555, 2377), (2473, 3469)),
}
_PARTS = {f"{folder}_{i}": (folder, limits) for folder, parts in _RANGES.items() for i, limits in enumerate(parts, 1)}


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A text file in a folder of `anno`."""
  del frames
  return path.suffix.lower() == ".txt" and path.parent.parent.name == "anno" and path.is_file()


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The annotation files of a root; the sets take the place of splits."""
  if is_sequence(root, frames):
    return [layout.found_at(root)]
  if root.parent.name == "anno":
    sets = [root]
  else:
    anno = root if root.name == "anno" else root / "anno"
    sets = [path for path in layout.linked_entries(anno) if path.is_dir()] if anno.is_dir() else []
  return [layout.found_at(path, folder.name) for folder in sets for path in layout.linked_entries(folder)
          if is_sequence(path, frames)]


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the annotation file `path`, x and y made 0-based."""
  found = labels.zero_based(labels.read_text(path), ORIGIN)
  flags = path.parent / "att" / path.name
  return dataclasses.replace(found, attributes=labels.read_flags(flags, ATTRIBUTES)) if flags.is_file() else found


def find_media(path: pathlib.Path) -> list[pathlib.Path]:
  """The images of the sequence's folder, or its part of them."""
  name, limits = _PARTS.get(path.stem, (path.stem, None))
  data = path.parents[2] / "data_seq"
  folders = [data / path.parent.name / name, data / "UAV123" / name]
  folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
  images = media.images_in(folder)
  if not images:
    raise UserError(f"{path}: no frames, expected image files in {folder}")
  return media.within(images, *limits) if limits else images
