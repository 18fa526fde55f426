"""From a sweep's config to an engine."""

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.config_check.commands import check_sweep
from siamdff_jax.sweeps import optuna_engine, population_engine, space


def sweep(config: ml_collections.ConfigDict, workdir: str, trials: int, engine: str = "optuna", worker: int = 0) -> str:
  """Runs a sweep to its end.

  Args:
    config: {"experiment": a training config, "space": see `space.parse`, "seed"}.
    workdir: of the sweep.
    trials: of the whole sweep.
    engine: "optuna" or "population".
    worker: of "optuna": the number of this process among those that share `workdir`.

  Returns:
    The table of trials, to be printed.

  Raises:
    UserError: the config is not a sweep's, or see the engines.
  """
  for name in ("experiment", "space", "seed"):
    if name not in config:
      raise UserError(f"the config has no `{name}`, expected a sweep's config like configs/sweep_quickstart.py")
  parameters = space.parse(config.space, config.experiment)
  check_sweep(config, parameters, space.apply)
  if engine == "optuna":
    return optuna_engine.run(config.experiment, parameters, workdir, trials, config.seed, worker)
  if engine == "population":
    return population_engine.run(config.experiment, parameters, workdir, trials, config.seed)
  raise ValueError(f"engine is {engine!r}, expected 'optuna' or 'population'")
