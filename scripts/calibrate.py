#!/usr/bin/env python3
"""Fits a tracker's presence to labelled sequences (Platt scaling of the network's logit and its peak-to-sidelobe
ratio), with a reliability plot.

  scripts/calibrate.py --checkpoint runs/student --format antiuav --root DATA/val --out runs/calibration

Writes calibration.json, reliability.png and reliability.html. The numbers belong into `config.tracker.belief` of the
network's config; `scripts/evaluate.py --tracker presence_scale=... --tracker presence_ratio=...` and so on tries them.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Training workdir, a checkpoint in one, or a shipped model.",
                                  required=True)
_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "Layout of the data set.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Folder of the data set, or of one split.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_ONLY = flags.DEFINE_string("only", "", "Only sequences whose name contains this.")


def main(_: list[str]) -> None:
  from siamdff_jax.experiments import calibration

  calibration.calibrate(_CHECKPOINT.value, _FORMAT.value, _ROOT.value, _OUT.value, only=_ONLY.value)


if __name__ == "__main__":
  cli.run(main)
