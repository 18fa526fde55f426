"""Training that starts from the weights of another run, or of a shipped model: fine-tuning, or a longer schedule."""

import logging

import jax.numpy as jnp
from flax import traverse_util

from input_pipeline.errors import UserError
from siamdff_jax.models.load import load_model
from siamdff_jax.training.state import TrainState

log = logging.getLogger(__name__)


def start_from(state: TrainState, checkpoint: str) -> TrainState:
  """A fresh training state with the averaged weights of a checkpoint, array by array of the same name.

  What only one of the two networks has (a module that a switch of `config.model` turns on or off) stays as it was
  initialised, or is left out, and is named in the log. The optimizer and the step start anew.

  Args:
    state: of `initial_state`.
    checkpoint: a training workdir, a .safetensors file or the name of a shipped model.

  Raises:
    UserError: no checkpoint there, or one with arrays of other shapes.
  """
  _, found = load_model(checkpoint)
  return state.replace(
      params=state.params | {"student": _merged(state.params["student"], found["params"], checkpoint)},
      ema=_merged(state.ema, found["params"], checkpoint),
      batch_stats=_merged(state.batch_stats, found["batch_stats"], checkpoint))


def _merged(own: dict, found: dict, checkpoint: str) -> dict:
  own, found = (traverse_util.flatten_dict(dict(tree), sep="/") for tree in (own, found))
  common = sorted(own.keys() & found.keys())
  differ = [f"{name} is {found[name].shape} there and {own[name].shape} here" for name in common
            if found[name].shape != own[name].shape]
  if differ or (own and not common):
    raise UserError(f"{checkpoint}: training cannot start from it, it is another network than config.model's: "
                    + (differ[0] if differ else "no array has the same name"))
  for where, names in (("only here, freshly initialised", own.keys() - found.keys()),
                       ("only there, left out", found.keys() - own.keys())):
    if names:
      log.info("%s: %s: %s", checkpoint, where, ", ".join(sorted(names)))
  # A step donates its buffers: none may occur twice.
  return traverse_util.unflatten_dict(own | {name: jnp.array(found[name], own[name].dtype) for name in common}, sep="/")
