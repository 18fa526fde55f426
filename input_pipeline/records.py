"""Packed storage: the frames of a data set as one TFDS data set of JPEG images, for random access.

Training reads frames in random order, which a video cannot give (it decodes from its start). Sequences stored as
video are therefore packed once; anything else can be, for object stores. Reading needs no TensorFlow.
"""

import dataclasses
import hashlib
import logging
import os
import shutil

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import DataError
from input_pipeline.frames import VideoFile
from input_pipeline.sequences import Sequence

JPEG_QUALITY = 95


def fingerprint(sequences: list[Sequence]) -> str:
  """What the packed frames depend on: names, labels, and the videos' sizes and modification times."""
  digest = hashlib.sha256(f"v1 jpeg {JPEG_QUALITY}".encode())
  for sequence in sequences:
    digest.update(sequence.name.encode())
    digest.update(np.ascontiguousarray(sequence.boxes).tobytes())
    if isinstance(sequence.frames, VideoFile):
      stat = os.stat(sequence.frames.path)
      digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
  return digest.hexdigest()[:16]


def with_random_access(sequences: list[Sequence], folder: str) -> list[Sequence]:
  """Replaces sequences stored as video by packed ones, written below `folder` when they are not there yet."""
  videos = [s for s in sequences if isinstance(s.frames, VideoFile)]
  if not videos:
    return sequences
  place = os.path.join(folder, fingerprint(videos))
  if not os.path.isdir(place):
    pack(videos, place)
  packed = {s.name: s for s in unpack(videos, place)}
  return [packed.get(s.name, s) for s in sequences]


def pack(sequences: list[Sequence], place: str):
  """Writes all frames to the folder `place`, which appears only when complete."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()  # One of ours is enough.
  partial = f"{place}.{os.getpid()}.partial"  # Two runs may pack at once; the first one done names it.
  total = sum(len(s) for s in sequences)
  logging.getLogger(__name__).info("packing %d frames of %d videos into %s", total, len(sequences), place)

  def examples():
    with tqdm(total=total, desc="pack", unit="frame") as progress:
      for sequence in sequences:
        for t, frame in enumerate(sequence.frames):
          _, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
          yield f"{sequence.name}/{t:06d}", {"image": jpeg.tobytes(), "sequence": sequence.name, "frame": t}
          progress.update()

  try:
    os.makedirs(partial)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="frames", version="1.0.0", data_dir=partial, split_datasets={"frames": examples()}, disable_shuffling=True,
        file_format="array_record", features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
            "sequence": tfds.features.Text(),
            "frame": tfds.features.Scalar(np.int64),
        }))
    if not os.path.isdir(place):
      os.rename(partial, place)
  except OSError as error:
    raise DataError(f"{place}: cannot write the packed frames ({error.strerror or error})") from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


class PackedFrames:
  """The frames of one sequence inside a packed data set: records start .. start + length - 1."""

  def __init__(self, source, start: int, length: int, where: str):
    self._source, self._start, self._length, self._where = source, start, length, where

  def __len__(self):
    return self._length

  def __getitem__(self, t):
    if not 0 <= t < self._length:
      raise IndexError(t)
    data = np.frombuffer(self._source[self._start + t]["image"], np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if image is None:
      raise DataError(f"{self._where}: record {self._start + t} is not a readable image; delete the folder to pack "
                      "again")
    return image

  def __iter__(self):
    return (self[t] for t in range(self._length))


def unpack(sequences: list[Sequence], place: str) -> list[Sequence]:
  """The same sequences with frames read from `place`, where `pack` wrote them in the same order."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(os.path.join(place, "frames", "1.0.0"))
  source = builder.as_data_source("frames", decoders={"image": tfds.decode.SkipDecoding()})
  total = sum(len(s) for s in sequences)
  if len(source) != total:
    raise DataError(f"{place}: holds {len(source)} frames, expected {total}; delete the folder to pack again")
  starts = np.cumsum([0] + [len(s) for s in sequences])
  return [dataclasses.replace(s, frames=PackedFrames(source, int(start), len(s), place))
          for s, start in zip(sequences, starts)]
