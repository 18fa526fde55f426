"""Settings of a tracker as configs, checkpoints and the flag --tracker give them."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ordered
from typing import Any

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.names import did_you_mean, nearest
from siamdff_jax.rules import is_group, literal, problem, problems
from siamdff_jax.tracking.settings import GROUP_OF, PLAIN, PRESETS, RULES, SHIPPED, Settings

# Checkpoints of version 0.1.0 have their settings in no groups, and what they do not say is as in PLAIN.
_EARLIER = {"motion.deviation": "deviation", "motion.rate": "velocity_rate", "size.hold": "size_hold",
            "size.rate": "size_rate", "size.window_share": "size_window_share"}


def of_config(config: Mapping[str, Any] | ml_collections.ConfigDict) -> tuple[Settings, list[str]]:
  """The settings of a config or a checkpoint.

  Args:
    config: `config.tracker`: all or some of `Settings.to_dict`, or what version 0.1.0 made.

  Returns:
    The settings; and the names in the config that there are not, or no more.

  Raises:
    UserError: a value that makes no sense.
  """
  base = SHIPPED if any(group in config for group in RULES) else PLAIN
  known: dict[str, Any] = {}
  foreign = []
  for path, value in _leaves(config):
    group, _, name = path.rpartition(".")
    name = name if RULES.get(group, {}).get(name) else _EARLIER.get(path, path)
    if name in GROUP_OF:
      known[name] = value
    else:
      foreign.append(path)
  return base.replace(**known), foreign


def config_problems(config: Any, trained: int | None, place: str) -> list[str]:
  """What is wrong with a config's settings, a sentence each.

  Args:
    config: `config.tracker`, all or some of `Settings.to_dict`.
    trained: pixels of the search crops that the network is trained with, if known.
    place: what the settings are called in the sentences.
  """
  if is_group(config) and (in_no_group := [name for name in config if nearest(name, GROUP_OF) and name not in RULES]):
    return [f"{place}.{name}: settings of trackers are in groups; did you mean '{GROUP_OF[near]}.{near}'?"
            for name in in_no_group if (near := nearest(name, GROUP_OF))]
  found = problems(config, RULES, place, partial=True)
  side = 0 if found or trained is None else config.get("look", {}).get("search_side", 0)
  return found + side_problems(side, trained, f"{place}.look") if trained is not None else found


def side_problems(side: int, trained: int, place: str) -> list[str]:
  """What is wrong with the setting `search_side` of a network that is trained with crops of `trained` pixels."""
  if side == 0 or (side % 8 == 7 and side >= trained):
    return []
  return [problem(f"{place}.search_side", side, f"8 n + 7 and at least the {trained} that the network is trained with, "
                  "or 0 for these")]


def parse(base: Settings, texts: Ordered[str]) -> Settings:
  """What `--tracker` of the scripts says: "NAME=VALUE" each, or the name of one of PRESETS before them.

  Raises:
    UserError: a name that does not exist or is there twice, or a value that makes no sense.
  """
  given: dict[str, Any] = {}
  for i, text in enumerate(texts):
    if text in PRESETS and i == 0:
      base = PRESETS[text]
      continue
    path, equals, value = text.partition("=")
    if not equals:
      raise UserError(f"--tracker {text!r}, expected NAME=VALUE, for example --tracker tiles=8, or as the first one "
                      f"{' or '.join(PRESETS)}")
    group, _, name = path.rpartition(".")
    if group not in ("", GROUP_OF.get(name)) or name not in GROUP_OF:
      raise UserError(f"--tracker {text}: no such setting, expected one of {', '.join(sorted(GROUP_OF))}"
                      f"{did_you_mean(_EARLIER.get(path, name), GROUP_OF)}")
    if name in given:
      raise UserError(f"--tracker {name} is given twice, as {given[name]!r} and {value}; expected once")
    given[name] = literal(value)
  found = [one for name, value in given.items()
           for one in problems(value, RULES[GROUP_OF[name]][name], f"--tracker {name}")]
  if found:
    raise UserError("; ".join(found))
  return base.replace(**given)


def _leaves(tree: Mapping[str, Any] | ml_collections.ConfigDict, path: str = "") -> Iterator[tuple[str, Any]]:
  """("a.b", value) of nested groups."""
  for name in tree:
    if is_group(tree[name]):
      yield from _leaves(tree[name], f"{path}{name}.")
    else:
      yield f"{path}{name}", tree[name]
