#!/usr/bin/env python3
"""Tracks a data set as recorded and as other cameras might have shown it (polarity, gain, noise, blur, resolution), and
tables what each of these costs.

  scripts/robustness.py --checkpoint lite --checkpoint r18 --format antiuav --root DATA/val --out runs/robustness

Writes robustness.md and .png, conditions.png (what the conditions look like), and for each tracker a report that
compares the conditions. The same command goes on where it was stopped.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from input_pipeline.conditions import CONDITIONS
from siamdff_jax import cli

_CHECKPOINT = flags.DEFINE_multi_string(
    "checkpoint", [], "Training workdir, a checkpoint in one, or a shipped model; NAME=CHECKPOINT names it. Repeat it "
    "to compare several.")
_BASELINES = flags.DEFINE_list("baselines", [], "OpenCV's trackers to run too: opencv (all), or KCF, CSRT, ...")
_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "Layout of the data set.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Folder of the data set, or of one split.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_CONDITIONS = flags.DEFINE_list("conditions", [], f"Some of {', '.join(CONDITIONS)}; default all.")
_TRACKER = flags.DEFINE_multi_string(
    "tracker", [], "NAME=VALUE: a setting of the checkpoints' trackers instead of their own. Repeat it for several.")
_ONLY = flags.DEFINE_string("only", "", "Only sequences whose name contains this.")
_STREAMS = flags.DEFINE_integer("streams", 8, "Sequences tracked in lockstep.", lower_bound=1)


def main(_):
  from siamdff_jax.evaluation import robustness
  from siamdff_jax.tracking.runner import one_device_per_core

  one_device_per_core()
  print(robustness.assess(_CHECKPOINT.value, _BASELINES.value, _FORMAT.value, _ROOT.value, _OUT.value,
                          conditions=_CONDITIONS.value, settings=_TRACKER.value, only=_ONLY.value,
                          streams=_STREAMS.value))


if __name__ == "__main__":
  cli.run(main)
