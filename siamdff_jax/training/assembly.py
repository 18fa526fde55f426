"""From a config to what the loop repeats: the state it starts from, and the step."""

from typing import Any

import ml_collections

from siamdff_jax import distillation
from siamdff_jax.models.build import build
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.parallel.layouts import Layout
from siamdff_jax.training import torch_weights, warm_start
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import Step, initial_state, make_step


def assemble(config: ml_collections.ConfigDict, layout: Layout, teacher: SiamDFF | None,
             teacher_variables: Any) -> tuple[TrainState, Step, Any]:
  """The state before the first step, the step to compile, and the teacher's variables (or None).

  State and variables are placed as the layout wants them.

  Raises:
    UserError: the config or the weights to start from do not fit.
  """
  model = build(config.model, layout.norm_axis)
  distiller = distillation.build(config.distiller) if teacher else None
  rule = optimizer(config.optimizer, config.train.steps)
  state = initial_state(model, distiller, rule, config.seed, (teacher, teacher_variables) if teacher else None)
  if config.train.init_checkpoint:
    state = warm_start.start_from(state, config.train.init_checkpoint)
  if config.train.init_backbone:
    state = torch_weights.start_from(state, config.train.init_backbone)
  step = make_step(model, rule, config, axis_name=layout.axis_name, distiller=distiller, teacher=teacher)
  return layout.put_state(state), step, layout.put_state(teacher_variables) if teacher else None


def resumed(restored: TrainState, initial: TrainState) -> TrainState:
  """The restored state with what this start has of its own.

  That is the weight decay, a number in the state (rates come from the schedule), and no bad steps: older checkpoints
  may be from within a streak.
  """
  decay = {"weight_decay": initial.opt_state.hyperparams["weight_decay"]}
  opt_state = restored.opt_state._replace(hyperparams=restored.opt_state.hyperparams | decay)
  return restored.replace(opt_state=opt_state, bad_steps=initial.bad_steps)
