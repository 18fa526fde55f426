"""A trained tracker from its checkpoint."""

import logging
from collections.abc import Sequence as Ordered
from typing import Any

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.models.load import load_model
from siamdff_jax.tracking import configured
from siamdff_jax.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def load_tracker(checkpoint: str, changes: Ordered[str] = ()) -> tuple[Tracker, dict[str, Any]]:
  """The tracker of a checkpoint and its network's variables.

  Args:
    checkpoint: see `trained.find`.
    changes: settings other than those of its config, as `--tracker` gives them, see `configured.parse`. Settings of the
      config that only another version of the project knows are left out, and named in a warning.

  Raises:
    UserError: no such checkpoint, a network that cannot track, or settings that make no sense.
  """
  config = trained.load_config(checkpoint)
  model, variables = load_model(checkpoint, config)
  try:
    settings, foreign = configured.of_config(config.tracker)
    tracker = Tracker(model, settings)
  except UserError as error:
    raise UserError(f"{checkpoint}: {error}") from error
  if foreign:
    log.warning("%s: its tracker was configured by another version of the project, left out: %s", checkpoint,
                ", ".join(foreign))
  return Tracker(model, configured.parse(tracker.settings, changes)), variables
