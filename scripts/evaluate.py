#!/usr/bin/env python3
"""Tracks every sequence of a data set from its first box and scores the results.

  scripts/evaluate.py --checkpoint runs/student --format antiuav --root DATA/val --out runs/student_val

Writes results/<sequence>.json, metrics.json and curves.png. --checkpoint KCF or CSRT runs OpenCV's tracker instead.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli
from siamdff_jax.evaluation.protocols import PROTOCOLS

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Training workdir, a checkpoint in one, a shipped model, or an OpenCV tracker (KCF, CSRT).")
_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "Layout of the data set.")
_ROOT = flags.DEFINE_string("root", None, "Folder of the data set, or of one split.")
_OUT = flags.DEFINE_string("out", None, "Folder for results/<sequence>.json, metrics.json and curves.png.")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "How to score; the default is the format's own.")
_ONLY = flags.DEFINE_string("only", "", "Only sequences whose name contains this.")
_STREAMS = flags.DEFINE_integer("streams", 4, "Sequences tracked in lockstep.", lower_bound=1)
_VIDEOS = flags.DEFINE_integer("videos", 0, "Annotated videos to write, of the first sequences by name.", lower_bound=0)
flags.mark_flags_as_required(["checkpoint", "format", "root", "out"])


def main(_):
  from siamdff_jax.evaluation import evaluate

  evaluate.evaluate_checkpoint(_CHECKPOINT.value, _FORMAT.value, _ROOT.value, _OUT.value,
                               protocol=_PROTOCOL.value or _FORMAT.value, only=_ONLY.value,
                               streams=_STREAMS.value, videos=_VIDEOS.value)


if __name__ == "__main__":
  cli.run(main)
