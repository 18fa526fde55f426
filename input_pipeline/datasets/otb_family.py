"""What the formats in OTB's layout share: `<sequence>/img/*.jpg` and one text file of boxes."""

import dataclasses
import pathlib

from input_pipeline.datasets import labels, layout, media
from input_pipeline.errors import UserError


def is_sequence(path: pathlib.Path, frames: bool) -> bool:
  """A folder with `img` or a label file; without frames also a text file."""
  if path.is_dir():
    return (path / "img").is_dir() or any(file.is_file() for file in label_files(path))
  return not frames and path.suffix.lower() == ".txt"


def label_files(path: pathlib.Path) -> list[pathlib.Path]:
  """Where the labels of a sequence folder can be, inside of it."""
  return [path / "groundtruth_rect.txt", path / "groundtruth.txt", media.named(path, f"{path.name}.txt")]


def find_media(path: pathlib.Path) -> list[pathlib.Path]:
  """The images in `img`, else those in the folder."""
  images = media.images_in(path / "img") or media.images_in(path)
  if not images:
    raise UserError(f"{path}: no frames, expected image files in {path / 'img'}")
  return images


@dataclasses.dataclass(frozen=True)
class OtbFamily:
  """The `Reader` of a benchmark in this layout, with files of a toolkit that is made from OTB's.

  Attributes:
    LAYOUT, ORIGIN: see `Reader`.
    ATTRIBUTES: the names of the flags in their order.
    ANNOS: the name of the toolkit's folder of annotations.
  """

  LAYOUT: str
  ATTRIBUTES: tuple[str, ...]
  ANNOS: str
  ORIGIN: int = 1

  def is_sequence(self, path: pathlib.Path, frames: bool) -> bool:
    """See the function of the same name."""
    return is_sequence(path, frames)

  def find(self, root: pathlib.Path, frames: bool) -> list[layout.Found]:
    """The sequences below a root, see `layout.walk`."""
    return layout.walk(root, frames, is_sequence, self.ANNOS)

  def find_media(self, path: pathlib.Path) -> list[pathlib.Path]:
    """See the function of the same name."""
    return find_media(path)

  def read_labels(self, path: pathlib.Path) -> labels.Labels:
    """Labels of the sequence `path` (folder or text file), x and y made 0-based.

    The files of the benchmark's toolkit, `<ANNOS>/<sequence>.txt` in the folder of the sequences or beside it, go
    before those in the sequence's folder, because they are what the toolkit scores with (and corrects). Attribute
    flags are in `<ANNOS>/att/<sequence>.txt`.
    """
    if path.is_dir():
      name, folders = f"{path.name}.txt", [path.parent / self.ANNOS, path.parent.parent / self.ANNOS]
    else:
      name, folders = path.name, [path.parent]
    beside = [media.named(folder, name) for folder in folders]
    files = [*beside, *label_files(path)] if path.is_dir() else [path]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
      raise labels.NoLabels(f"{path}: no labels, expected {' or '.join(file.name for file in label_files(path))} in it "
                            f"or {beside[0]}")
    found = labels.zero_based(labels.read_text(file), self.ORIGIN)
    flags = next(filter(pathlib.Path.is_file, (media.named(folder / "att", name) for folder in folders)), None)
    return found if flags is None else dataclasses.replace(found, attributes=labels.read_flags(flags, self.ATTRIBUTES))
