"""The TFDS data set of crops. Importing this module registers it: `tfds.load("infrared_crops", data_dir=FOLDER)`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

if TYPE_CHECKING:
  import tensorflow as tf

SPLIT = "crops"


class InfraredCrops(tfds.core.GeneratorBasedBuilder):
  """Parts of infrared frames around a target, in the order of sequences and frames, for random access."""

  VERSION = tfds.core.Version("1.0.0")

  def __init__(self, *, examples: Iterator[dict] | None = None, facts: dict | None = None, **kwargs: Any):
    """`examples` and `facts` (what `DatasetInfo.metadata` says of them) are for writing; reading needs neither."""
    self._examples, self._facts = examples, facts
    super().__init__(**{"file_format": "array_record"} | kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self, disable_shuffling=True, description=__doc__,
        metadata=tfds.core.MetadataDict(self._facts or {}),
        features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
            "x": tfds.features.Scalar(np.int32),  # Of the image's first pixel in the frame.
            "y": tfds.features.Scalar(np.int32),
            "mean": tfds.features.Scalar(np.float32),  # Grey level of the whole frame.
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),  # xywh in the frame, zero where absent.
            "visible": tfds.features.Scalar(np.bool_),
            "sequence": tfds.features.Text(),
            "frame": tfds.features.Scalar(np.int32),
        }))

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
    del dl_manager
    return {SPLIT: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict]]:
    assert self._examples is not None
    yield from enumerate(self._examples)

  def _as_dataset(self, split: Any, decoders: Any = None, read_config: Any = None,
                  shuffle_files: bool = False) -> "tf.data.Dataset":
    """TFDS itself reads ArrayRecord files by index only; `tfds.load` should work all the same."""
    del read_config, shuffle_files
    import tensorflow as tf

    records = self.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)

    def read(index: tf.Tensor) -> dict[str, tf.Tensor]:
      record = tf.numpy_function(lambda i: records[int(i)], [index], tf.string, stateful=False)
      return self.info.features.deserialize_example(tf.ensure_shape(record, ()), decoders=decoders)

    return tf.data.Dataset.range(len(records)).map(read)


def raw_records(root: str) -> Sequence[bytes]:
  """The records of a folder as bytes, by number."""
  return InfraredCrops(data_dir=root).as_data_source(
      SPLIT, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)


def image_of(record: bytes) -> bytes:
  """The encoded image of one of `raw_records`: TFDS would parse all features, which takes far longer than reading."""
  return tf_example_pb2.Example.FromString(record).features.feature["image"].bytes_list.value[0]
