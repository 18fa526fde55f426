"""Training that starts from the weights of another run, or of a shipped model: fine-tuning, or a longer schedule."""

import logging
from collections.abc import Mapping
from typing import Any

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


def _merged(own: Mapping[str, Any], found: Mapping[str, Any], checkpoint: str) -> dict[str, Any]:
  """`own` with the arrays of `found` of the same name."""
  mine, theirs = (traverse_util.flatten_dict(dict(tree), sep="/") for tree in (own, found))
  common = sorted(mine.keys() & theirs.keys())
  differ = [f"{name} is {theirs[name].shape} there and {mine[name].shape} here" for name in common
            if theirs[name].shape != mine[name].shape]
  if differ or (mine and not common):
    raise UserError(f"{checkpoint}: training cannot start from it, it is another network than config.model's: "
                    + (differ[0] if differ else "no array has the same name"))
  for where, names in (("only here, freshly initialised", mine.keys() - theirs.keys()),
                       ("only there, left out", theirs.keys() - mine.keys())):
    if names:
      log.info("%s: %s: %s", checkpoint, where, ", ".join(sorted(names)))
  # A step donates its buffers: none may occur twice.
  taken = {name: jnp.array(theirs[name], mine[name].dtype) for name in common}
  return traverse_util.unflatten_dict(mine | taken, sep="/")
