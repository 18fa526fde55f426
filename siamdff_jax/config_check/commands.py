"""The configs of the commands that make several experiments of one: sweeps and ablations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.config_check import experiment
from siamdff_jax.names import did_you_mean
from siamdff_jax.rules import is_group, problem, problems, text, whole

_EXPERIMENT = "--config.experiment"
_SWEEP = {"seed": whole(0, experiment.LARGEST_SEED)}
_ABLATION = {"trainings": whole(1)}
_VARIANT = {"name": text(), "of": text()}


def check_sweep(config: ml_collections.ConfigDict, space: Sequence[Any],
                with_values: Callable[[ml_collections.ConfigDict, dict[str, Any]], ml_collections.ConfigDict]) -> None:
  """Checks a sweep's config: the experiment, and what it would be with each bound or choice of the space.

  Args:
    config: {"experiment", "space", "seed"}.
    space: see `sweeps.space.parse`.
    with_values: `sweeps.space.apply`.

  Raises:
    UserError: what makes no sense, in one sentence.
  """
  found = _others(config, _SWEEP, ("experiment", "space")) + experiment.single(config.experiment, _EXPERIMENT)
  found = found or experiment.together(config.experiment, _EXPERIMENT)
  if not found:
    # By themselves only: what one value makes wrong, another one of the space may make right.
    found = [f"search space: {p.path}: {one}" for p in space for value in (p.values or (p.low, p.high))
             for one in experiment.single(with_values(config.experiment, {p.path: value}), _EXPERIMENT)]
  if found:
    raise UserError("; ".join(found))


def check_ablation(config: ml_collections.ConfigDict) -> None:
  """Checks an ablation's config; its variants' own experiments are checked by `check_variant`.

  Raises:
    UserError: what makes no sense, in one sentence.
  """
  for name in ("experiment", "variants", "trainings"):
    if name not in config:
      raise UserError(f"the config has no `{name}`, expected an ablation's config like configs/ablation.py")
  found = _others(config, _ABLATION, ("experiment", "variants"))
  found += experiment.single(config.experiment, _EXPERIMENT)
  names: list[str] = []
  for number, entry in enumerate(config.variants):
    place = f"config.variants[{number}]"
    if not is_group(entry) or not is_group(entry.get("changes")):
      found.append(f"{place}: expected name, of and changes, as in configs/ablation.py")
      continue
    found += problems({key: entry[key] for key in entry if key != "changes"}, _VARIANT, place)
    found += experiment.single(entry["changes"], f"{place}.changes", partial=True)
    if entry.get("of") and entry["of"] not in names:
      found.append(f"{place}: of {entry['of']!r}, expected '' or a variant before it"
                   f"{did_you_mean(str(entry['of']), names)}")
    if entry.get("name") in names or not entry.get("name"):
      found.append(f"{place}: is called {entry.get('name')!r}, expected a name of its own")
    names.append(str(entry.get("name")))
  if not names:
    found.append("config.variants: is empty, expected at least one")
  if not found and config.experiment.seed + config.trainings - 1 > experiment.LARGEST_SEED:
    found.append(problem("--config.trainings", config.trainings,
                         f"seeds from {config.experiment.seed} on to be at most {experiment.LARGEST_SEED}"))
  if found:
    raise UserError("; ".join(found))


def check_variant(name: str, config: ml_collections.ConfigDict) -> None:
  """Checks the experiment of an ablation's variant; the sentence names the variant."""
  try:
    experiment.check(config, _EXPERIMENT)
  except UserError as error:
    raise UserError(f"variant {name!r}: {error}") from error


def _others(config: ml_collections.ConfigDict, table: Mapping[str, Any], groups: Sequence[str]) -> list[str]:
  """What is wrong with the entries beside the groups that are checked by themselves."""
  return problems({key: config[key] for key in config if key not in groups}, table, "--config")
