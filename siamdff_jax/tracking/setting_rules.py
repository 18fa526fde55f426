"""The settings of a tracker: what `config.tracker` and `--tracker NAME=VALUE` may set, see `tracking.tracker`."""

from collections.abc import Mapping
from typing import Any

from input_pipeline.errors import UserError
from siamdff_jax.rules import Rule, is_group, number, problem, problems, switch, whole

TABLE = {
    "search_side": whole(0),  # And 8 n + 7, as far as the network allows: `Tracker` knows it.
    "scale_penalty": number(0),
    "window": number(0, 1),
    "motion": {"deviation": number(0), "rate": number(0, 1)},
    "size": {"hold": number(0), "rate": number(0), "window_share": number(least=0, below=1)},
    "presence_scale": number(), "presence_bias": number(), "presence_ratio": number(),
    "jump_ratio": number(0),
    "absent_below": number(0),  # Above 1: never seen.
    "sure_above": number(0),  # Above 1: never sure.
    "found_above": number(0),
    "found_share": number(0, 1),
    "lost_after": whole(0),
    "growth": number(1),
    "tiles": whole(0),
    "camera_compensation": switch(),
    "template_update": number(0, 0.5),  # The first template must stay the larger part.
    "template_below": number(0),
    "template_every": whole(1),
}


def tracker_problems(settings: Any, trained: int | None, place: str) -> list[str]:
  """What is wrong with some or all of a tracker's settings, a sentence each.

  Args:
    settings: {name: value}, nested as `default_config()` is.
    trained: pixels of the search crops that the network is trained with, if known.
    place: what the settings are called in the sentences.
  """
  found = problems(settings, TABLE, place, partial=True)
  side = 0 if found or trained is None else settings.get("search_side", 0)
  if side and (side % 8 != 7 or side < trained):
    return [problem(f"{place}.search_side", side, f"8 n + 7 and at least the {trained} that the network is trained "
                    "with, or 0 for these")]
  return found


def check_tracker(settings: Any, trained: int):
  """Raises a UserError for `tracker_problems`, all of them in one sentence."""
  if found := tracker_problems(settings, trained, "tracker"):
    raise UserError("; ".join(found))


def known(settings: Mapping) -> tuple[dict, list[str]]:
  """The settings that there are, and the names of the others, nested ones with dots."""
  kept, foreign = {}, []
  for name in settings:
    if name not in TABLE:
      foreign.append(name)
    elif isinstance(TABLE[name], dict) and is_group(settings[name]):
      kept[name] = {inner: settings[name][inner] for inner in settings[name] if inner in TABLE[name]}
      foreign += [f"{name}.{inner}" for inner in settings[name] if inner not in TABLE[name]]
    else:
      kept[name] = settings[name]
  return kept, foreign


def flat() -> dict[str, Rule]:
  """The rule of every setting, nested ones by names with dots."""
  found = {}
  for name, rule in TABLE.items():
    if isinstance(rule, dict):
      found |= {f"{name}.{inner}": rule_of_inner for inner, rule_of_inner in rule.items()}
    else:
      found[name] = rule
  return found
