#!/usr/bin/env python3
r"""Trains the variants of an experiment one after the other, tracks labelled data with each and tabulates their gains.

  scripts/ablation.py --config configs/ablation.py --workdir runs/ablation \
      --config.experiment.data.train.clips.root=DATA/svanstrom_ir/train \
      --config.experiment.teacher.checkpoint=runs/teacher \
      --data val=antiuav:DATA/svanstrom_ir/val --data simulated=antiuav410:runs/simulated_test

DIR/<variant>/seed_<n> are training workdirs, DIR/evaluation/<data> holds the results and a report of all variants,
DIR/ablation.md the table, written anew after every training. The same command goes on where it was stopped. Without
a teacher the distilled variants are left out; the same command with one adds them. --config.trainings=3 trains every
variant with three seeds, and says how sure a difference is over these.
"""

import os

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_CONFIG = cli.define_config("The ablation, configs/ablation.py: `variants` of an `experiment` "
                            "(--config.experiment.KEY=VALUE).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the ablation.")
_DATA = flags.DEFINE_multi_string("data", None, "NAME=FORMAT:ROOT, labelled data to track; may be repeated. Scored by "
                                  "the format's own protocol.")
flags.mark_flags_as_required(["config", "workdir", "data"])


def main(_: list[str]) -> None:
  import jax

  from siamdff_jax.experiments.ablation import ablate

  if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", os.path.join(_WORKDIR.value, "compiled"))
  print(ablate(_CONFIG.value, _WORKDIR.value, _DATA.value))


if __name__ == "__main__":
  cli.run(main)
