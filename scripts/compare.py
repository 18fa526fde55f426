#!/usr/bin/env python3
"""Compares trackers by their result files: one table, one figure with the curves. Needs annotations only, no images.

  scripts/compare.py --format antiuav --root DATA/val --protocol antiuav --out runs/compared \
      --results ours=runs/val,CSRT=runs/csrt

A results folder holds <sequence>.json or .txt, or is an evaluate.py --out folder (then its results/ is taken).
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli
from siamdff_jax.evaluation import compare
from siamdff_jax.evaluation.protocols import PROTOCOLS

_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "The labels' format.")
_ROOT = flags.DEFINE_string("root", None, "The data set's folder.")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "Whose rules to score by.")
_RESULTS = flags.DEFINE_list("results", None, "NAME=FOLDER[,NAME=FOLDER...], in the order of the table's rows.")
_OUT = flags.DEFINE_string("out", None, "Folder for comparison.md, curves.png and <NAME>.json.")
flags.mark_flags_as_required(["format", "root", "protocol", "results", "out"])


def main(_):
  print(compare.compare(_FORMAT.value, _ROOT.value, _PROTOCOL.value, _RESULTS.value, _OUT.value))


if __name__ == "__main__":
  cli.run(main)
