#!/usr/bin/env python3
"""Packs a data set for training: what the networks can ever see of it, as a sharded TensorFlow Datasets data set.

  scripts/prepare_data.py --format=antiuav410 --root=Anti-UAV410/train --out=packed/antiuav410_train
  scripts/train.py --config=... --config.data.train.antiuav410.format=packed \\
      --config.data.train.antiuav410.root=packed/antiuav410_train

Stored are the surroundings of the target in the frames' own pixels (JPEG, quality 95) with box, visibility, sequence
and frame number. An interrupted run goes on with the same command. At the end labels and some frames are compared with
the source. Read it with

  import input_pipeline.records.builder, tensorflow_datasets as tfds
  tfds.load("infrared_crops", data_dir=OUT, split="crops")         # or tfds.data_source, which needs no TensorFlow
"""

import os

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets, records
from siamdff_jax import cli

_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "How the data set is laid out.", required=True)
_ROOT = flags.DEFINE_string("root", None, "The folder of the data set.", required=True)
_OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
_CONTEXT = flags.DEFINE_float("context", records.CONTEXT, "How far around the target to keep, in sides of the template "
                              "window; 3 is enough for search crops of twice the template's side, 4.2 for three times.",
                              lower_bound=0.5)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Threads.", lower_bound=1)
_SHARDS = flags.DEFINE_integer("shards", None, "Number of files; chosen by size when not given.", lower_bound=1)
_VERIFY = flags.DEFINE_integer("verify", 200, "Frames to compare with the source; 0 for all.", lower_bound=0)


def main(_: list[str]) -> None:
  sequences = datasets.load(_FORMAT.value, _ROOT.value)
  records.prepare(sequences, _OUT.value, context=_CONTEXT.value, workers=_WORKERS.value, shards=_SHARDS.value)
  mean, largest = records.verify(sequences, _OUT.value, _VERIFY.value or None)
  frames = sum(len(sequence) for sequence in records.load(_OUT.value))
  print(f"{frames} frames in {_OUT.value}, fingerprint {records.packed_fingerprint(_OUT.value)}; all labels equal the "
        f"source's, pixels of the frames compared differ by {mean:.2f} grey levels on average, {largest} at most")


if __name__ == "__main__":
  cli.run(main)
