#!/usr/bin/env python3
"""Trains a tracker, teacher or student, in a workdir; goes on from its last checkpoint when it has one.

  scripts/train.py --config configs/quickstart.py --workdir runs/student [--config.train.steps=1000 ...]
"""

from absl import flags
from ml_collections import config_flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment, configs/NAME.py[:variant]; single "
                                          "values are set by --config.KEY=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and logs.")
flags.mark_flags_as_required(["config", "workdir"])


def main(_):
  from siamdff_jax.training.loop import train

  train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  cli.run(main)
