"""Settings of a tracker given as text: what `--tracker NAME=VALUE` of the scripts does."""

import ast
from collections.abc import Sequence

from input_pipeline.errors import DataError
from siamdff_jax.tracking.tracker import Tracker


def with_settings(tracker: Tracker, settings: Sequence[str]) -> Tracker:
  """The tracker with other post-processing.

  Args:
    tracker: whose config holds what is not given.
    settings: "NAME=VALUE" each, with names of `tracker.default_config()` (nested ones with dots).

  Raises:
    DataError: a name that does not exist, or a value of another kind than the one it replaces.
  """
  config = tracker.config.as_configdict().lock()
  for setting in settings:
    name, equals, text = setting.partition("=")
    try:
      value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
      value = None
    if not equals or value is None:
      raise DataError(f"--tracker {setting!r}, expected NAME=VALUE, for example --tracker tiles=8")
    try:
      config.update_from_flattened_dict({name: value})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      known = ", ".join(sorted(config))
      raise DataError(f"--tracker {setting}: no such setting or of another kind, expected one of {known}") from error
  try:
    return Tracker(tracker.model, config)
  except ValueError as error:
    raise DataError(f"--tracker: {error}") from error
