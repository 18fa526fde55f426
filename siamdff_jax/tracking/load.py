"""A trained tracker from its checkpoint."""

import logging
from typing import Any

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.models.load import load_model
from siamdff_jax.tracking import setting_rules
from siamdff_jax.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def load_tracker(checkpoint: str) -> tuple[Tracker, dict[str, Any]]:
  """(Tracker, variables) of a checkpoint, with the post-processing that its config asks for.

  Settings that only another version of the project knows are left out, and named in a warning.
  """
  config = trained.load_config(checkpoint)
  model, variables = load_model(checkpoint, config)
  known, foreign = setting_rules.known(config.tracker)
  if foreign:
    log.warning("%s: its tracker was configured by another version of the project, left out: %s", checkpoint,
                ", ".join(foreign))
  try:
    return Tracker(model, known), variables
  except UserError as error:
    raise UserError(f"{checkpoint}: {error}") from error
