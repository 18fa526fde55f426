"""Settings of a tracker given as text: what `--tracker NAME=VALUE` of the scripts does."""

from collections.abc import Sequence

from input_pipeline.errors import UserError
from siamdff_jax.names import did_you_mean
from siamdff_jax.rules import literal, problems
from siamdff_jax.tracking import setting_rules as known
from siamdff_jax.tracking.tracker import Tracker


def with_settings(tracker: Tracker, settings: Sequence[str]) -> Tracker:
  """The tracker with other post-processing.

  Args:
    tracker: whose config holds what is not given.
    settings: "NAME=VALUE" each, with names of `tracker.default_config()` (nested ones with dots).

  Raises:
    UserError: a name that does not exist or is there twice, or a value that makes no sense.
  """
  rules, given, found = known.flat(), {}, []
  for setting in settings:
    name, equals, text = setting.partition("=")
    if not equals:
      raise UserError(f"--tracker {setting!r}, expected NAME=VALUE, for example --tracker tiles=8")
    if name not in rules:
      raise UserError(f"--tracker {setting}: no such setting, expected one of {', '.join(sorted(rules))}"
                      f"{did_you_mean(name, rules)}")
    if name in given:
      raise UserError(f"--tracker {name} is given twice, as {given[name]!r} and {text}; expected once")
    given[name] = literal(text)
    found += problems(given[name], rules[name], f"--tracker {name}")
  if found:
    raise UserError("; ".join(found))
  config = tracker.config.as_configdict()
  try:
    config.update_from_flattened_dict(given)
    return Tracker(tracker.model, config)
  except (TypeError, ValueError) as error:
    raise UserError(f"--tracker: {error}") from error
