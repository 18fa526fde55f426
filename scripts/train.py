#!/usr/bin/env python3
"""Trains a tracker, teacher or student, in a workdir; goes on from its last checkpoint when it has one.

  scripts/train.py --config configs/quickstart.py --workdir runs/student [--config.train.steps=1000 ...]

A workdir belongs to its config and data: with others the command is refused, unless --allow_changes says that they are
meant. One training at a time writes there. SIGTERM and Ctrl-C save first; Ctrl-C twice stops at once.

Several hosts train together: the same command on each, on a TPU pod, SLURM, Open MPI or Kubernetes with --distributed,
elsewhere with --coordinator=HOST:PORT --num_processes=N --process_id=0..N-1. The workdir must be one that all see.
"""

import os

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_CONFIG = cli.define_config("The experiment, configs/NAME.py[:variant]; single values are set by --config.KEY=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and logs.")
_COMPILED = flags.DEFINE_string("compiled", None, "Folder for compiled programs, which the next start then need not "
                                "compile. Default: $JAX_COMPILATION_CACHE_DIR, else `compiled` beside the workdir; "
                                "empty: none.")
_ALLOW_CHANGES = flags.DEFINE_bool("allow_changes", False, "Go on from the workdir's checkpoint although it was "
                                   "trained with another config, other data or another teacher.")
cli.define_processes()
flags.mark_flags_as_required(["config", "workdir"])


def main(_: list[str]) -> None:
  cli.join_processes()
  import jax

  from siamdff_jax.training.loop import train

  if _COMPILED.value is not None or not jax.config.jax_compilation_cache_dir:
    beside = os.path.join(os.path.dirname(os.path.normpath(_WORKDIR.value)), "compiled")
    jax.config.update("jax_compilation_cache_dir", beside if _COMPILED.value is None else _COMPILED.value or None)
  train(_CONFIG.value, _WORKDIR.value, _ALLOW_CHANGES.value)


if __name__ == "__main__":
  cli.run(main)
