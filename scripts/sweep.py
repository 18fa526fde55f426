#!/usr/bin/env python3
r"""Searches hyper-parameters: trains an experiment many times, with other values each time, and compares the results.

  scripts/sweep.py --config configs/sweep_quickstart.py --workdir runs/sweep --trials 20 \
      --config.experiment.data.train.simulated.root=TRAIN --config.experiment.data.validation.simulated.root=TEST

DIR/trial_0000, DIR/trial_0001 ... are training workdirs. At the end DIR/trials.csv holds every trial and
DIR/best_config.json the best one's config. The same command goes on with an interrupted sweep; a larger --trials adds
to it. Two engines:

  optuna      varies anything in the config; learns from the trials before. Any number of processes and hosts may work
              in the same DIR, each with its own --worker number. Needs `pip install -r requirements-sweep.txt`.
  population  varies learning rate, weight decay, warm-up steps and final fraction; trains as many members at a time as
              the host has devices, one on each, in one program with one input pipeline.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_CONFIG = cli.define_config("The sweep, configs/sweep_NAME.py[:variant]: `space`, `seed` and the `experiment` that "
                            "it varies (--config.experiment.KEY=VALUE).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.")
_TRIALS = flags.DEFINE_integer("trials", 20, "Trials of the whole sweep, earlier and other workers' included.",
                               lower_bound=1)
_ENGINE = flags.DEFINE_enum("engine", "optuna", ["optuna", "population"], "How trials are chosen and trained.")
_WORKER = flags.DEFINE_integer("worker", 0, "Number of this process among those that share the workdir (optuna).",
                               lower_bound=0)
flags.mark_flags_as_required(["config", "workdir"])


def main(_: list[str]) -> None:
  from siamdff_jax.sweeps.sweep import sweep

  print(sweep(_CONFIG.value, _WORKDIR.value, _TRIALS.value, _ENGINE.value, _WORKER.value))


if __name__ == "__main__":
  cli.run(main)
