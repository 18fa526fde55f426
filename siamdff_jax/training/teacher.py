"""The frozen network that a training distils from."""

from typing import Any

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.models.load import load_model
from siamdff_jax.models.siamdff import SiamDFF


def load_teacher(config: ml_collections.ConfigDict) -> tuple[SiamDFF, dict[str, Any]] | tuple[None, None]:
  """The teacher that the config names and its variables; (None, None) without distillation.

  Raises:
    UserError: no teacher is named, there is none, or its windows have other sides than the student's.
  """
  if config.distiller.kind == "none":
    return None, None
  if not config.teacher.checkpoint:
    raise UserError("config.distiller.kind is set but config.teacher.checkpoint is empty: train a teacher first and "
                    "name its workdir, or set --config.distiller.kind=none")
  teacher_config = trained.load_config(config.teacher.checkpoint)
  for side in ("template_side", "search_side"):
    theirs, ours = teacher_config.model[side], config.model[side]
    if theirs != ours:
      raise UserError(f"{config.teacher.checkpoint}: the teacher's {side} is {theirs}, the student's {ours}; they must "
                      f"be equal, set --config.model.{side}={theirs}")
  return load_model(config.teacher.checkpoint)
