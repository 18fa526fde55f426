#!/usr/bin/env python3
"""Compares what networks see in windows about the true place, as recorded and as other cameras might have shown it.

  scripts/windows.py --checkpoint lite --checkpoint runs/student --format antiuav --root DATA/val --out runs/windows

Minutes instead of the hours of scripts/robustness.py, and with far less chance in it, as no window depends on what was
seen before: for choosing between networks. Writes windows.md (IoU of the best box; how well presence separates the
target from what looks like it; differences with intervals) and windows.json (the same by sequence).
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from input_pipeline.conditions import CONDITIONS
from siamdff_jax import cli

_CHECKPOINT = flags.DEFINE_multi_string(
    "checkpoint", [], "Training workdir, a checkpoint in one, or a shipped model; NAME=CHECKPOINT names it. Repeat it "
    "to compare others with the first.")
_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "Layout of the data set.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Folder of the data set, or of one split.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_CONDITIONS = flags.DEFINE_list("conditions", [], f"Some of {', '.join(CONDITIONS)}; default all.")
_TRACKER = flags.DEFINE_multi_string(
    "tracker", [], "NAME=VALUE: a setting of the checkpoints' trackers instead of their own. Repeat it for several.")
_ONLY = flags.DEFINE_string("only", "", "Only sequences whose name contains this.")
_FRAMES = flags.DEFINE_integer("frames", 5, "Of each sequence.", lower_bound=1)


def main(_):
  from siamdff_jax.evaluation import windows

  print(windows.assess(_CHECKPOINT.value, _FORMAT.value, _ROOT.value, _OUT.value, conditions=_CONDITIONS.value,
                       settings=_TRACKER.value, only=_ONLY.value, frames=_FRAMES.value))


if __name__ == "__main__":
  cli.run(main)
