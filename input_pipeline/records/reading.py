"""Reading packed data: sequences whose frames are the stored parts. Needs no TensorFlow."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from etils import epath

from input_pipeline.errors import UserError
from input_pipeline.frames import Cutout, Encoded, FrameSource
from input_pipeline.sequences import Sequence

INDEX = "index.npz"  # Labels and places of all frames, so that no record is read to know them.
_NAME, _VERSION = "infrared_crops", "1.0.0"


def dataset_folder(root: str) -> str:
  """Where TFDS keeps the data set inside the folder given to `prepare`."""
  return os.path.join(root, _NAME, _VERSION)


def read_index(root: str) -> dict[str, np.ndarray]:
  """The index that `prepare` wrote last of all, so it exists only beside complete data.

  Raises:
    UserError: no complete packed data there.
  """
  path = epath.Path(dataset_folder(root)) / INDEX  # May lie in a bucket.
  try:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
      return dict(file)
  except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(f"{root}: no complete packed data there ({path}: {error}); expected the folder that "
                    "scripts/prepare_data.py wrote, which goes on when it is started again") from error


def packed_context(root: str) -> float:
  """How far around the target's anchor it reaches, in sides of the template window; errors as `read_index`."""
  return float(read_index(root)["context"])


def packed_fingerprint(root: str) -> str:
  """What `cutting.fingerprint` said of the source when it was packed; errors as `read_index`."""
  return str(read_index(root)["fingerprint"])


def load(root: str) -> list[Sequence]:
  """The sequences as they were packed; their frames can be cropped around the target, not read whole.

  Raises:
    UserError: no packed data there, or incomplete.
  """
  from input_pipeline.records import builder

  index = read_index(root)
  source = builder.raw_records(root)
  if len(source) != len(index["boxes"]):
    raise UserError(f"{root}: holds {len(source)} frames, its index {len(index['boxes'])}; delete the folder and pack "
                    "again")
  sequences, start = [], 0
  # Not in what was packed before there were any.
  counts = index.get("lookalike_counts", np.zeros(len(index["names"]), int))
  lookalikes = np.split(index.get("lookalikes", np.zeros((0, 5), np.float32)), np.cumsum(counts)[:-1])
  for name, length, attributes, others in zip(
      index["names"], index["lengths"], index["attributes"], lookalikes, strict=True):
    rows = slice(start, start + int(length))
    frames = PackedCrops(lambda n: builder.image_of(source[n]), rows, index, root)
    sequences.append(Sequence(str(name), frames, index["boxes"][rows], index["visible"][rows],
                              tuple(json.loads(str(attributes))), lookalikes=others))
    start = rows.stop
  return sequences


class PackedCrops(FrameSource):
  """The stored parts of one sequence's frames.

  Attributes:
    rectangles: int32 [T, 4] x, y, w, h of the parts in their frames.
    means: float32 [T], the whole frames' mean grey levels.
  """

  def __init__(self, read: Callable[[int], bytes], rows: slice, index: Mapping[str, np.ndarray], where: str):
    self._read, self._start, self._where = read, rows.start, where
    self.rectangles, self.means = index["rectangles"][rows], index["means"][rows]

  def __len__(self) -> int:
    return len(self.rectangles)

  def __getitem__(self, t: int) -> np.ndarray:
    raise UserError(f"{self._where}: packed data hold the surroundings of the target, not whole frames; use the "
                    "original data here")

  def encoded(self, t: int) -> Encoded:
    if not 0 <= t < len(self):
      raise IndexError(t)
    x, y = self.rectangles[t, :2]
    return Encoded(self._read(self._start + t), int(x), int(y), float(self.means[t]))

  def cutout(self, t: int) -> Cutout:
    stored = self.encoded(t)
    image = cv2.imdecode(np.frombuffer(stored.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != tuple(self.rectangles[t, :1:-1]):
      raise UserError(f"{self._where}: record {self._start + t} is not the image that its index says; delete the "
                      "folder and pack again")
    return Cutout(image, stored.x, stored.y, stored.mean)
