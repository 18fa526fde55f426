"""Anti-UAV410: `{train,val,test}/<sequence>/*.jpg` + `IR_label.json`, text labels and attributes in `annos/`.

Labels come from `IR_label.json` when it is there (it carries the `exist` flags), else from
`annos/<split>/<sequence>.txt`; attributes from `annos/<split>/att/<sequence>.txt`, else from the list "attributes" in
the JSON. Boxes are 0-based.
Without frames, the `annos` folder or one of its splits is enough as a root.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError

LAYOUT = ("folders <sequence>/ (or <split>/<sequence>/) with image files and IR_label.json or "
          "annos/<split>/<sequence>.txt")
ORIGIN = 0
ATTRIBUTES = ("TC", "OV", "SV", "FM", "OC", "DBC", "TS", "SS", "MS", "NS")
_JSON = "IR_label.json"


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A folder with IR_label.json, or images and no labelled subfolder; without frames also a text file of `annos`."""
  if path.is_dir():
    # A picture beside the sequences (the simulator's contact sheet) does not make their folder one of them.
    return (path / _JSON).is_file() or (bool(media.images_in(path)) and not any(path.glob(f"*/{_JSON}")))
  return not frames and path.suffix.lower() == ".txt"


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences below a root, see `layout.walk`."""
  return layout.walk(root, frames, is_sequence)


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence in the folder `path`, or of the text file `path`."""
  return labels_with(path, ATTRIBUTES)


def labels_with(path: pathlib.Path, names: Sequence[str | None]) -> labels.Labels:
  """`read_labels` for attribute files whose flags have other names, see `labels.read_flags`."""
  text, flags = _text_files(path)
  if path.is_dir() and (path / _JSON).is_file():
    found = labels.read_json(path / _JSON)
  elif text.is_file():
    found = labels.read_text(text)
  else:
    raise labels.NoLabels(f"{path}: no labels, expected {path / _JSON} or {text}")
  if flags.is_file():
    found = dataclasses.replace(found, attributes=labels.read_flags(flags, names))
  return found


def find_media(path: pathlib.Path) -> list[pathlib.Path]:
  """The images of the folder."""
  images = media.images_in(path)
  if not images:
    raise UserError(f"{path}: no frames, expected image files")
  return images


def _text_files(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
  """Where the text labels and the attribute flags of a sequence are (or would be)."""
  if not path.is_dir():
    return path, path.parent / "att" / path.name
  split = path.parent
  folders = (split.parent / "annos" / split.name, split / "annos")
  folder = next((folder for folder in folders if folder.is_dir()), folders[0])
  return media.named(folder, f"{path.name}.txt"), media.named(folder / "att", f"{path.name}.txt")
