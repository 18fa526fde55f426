"""A trained network from its checkpoint."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from siamdff_jax.checkpoints import trained
from siamdff_jax.models.build import build
from siamdff_jax.models.siamdff import SiamDFF


@functools.cache  # Tracing takes seconds, and equal networks are asked for again and again.
def abstract_variables(model: SiamDFF) -> dict[str, Any]:
  """Shapes of the network's {"params", "batch_stats"}."""
  channels = 2 if model.prior_channel else 1
  template, search = (jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
                      for side in (model.template_side, model.search_side))
  return jax.eval_shape(model.init, jax.random.key(0), template, jax.ShapeDtypeStruct((1, 2), jnp.float32), search)


def load_model(checkpoint: str, config: ml_collections.ConfigDict | None = None) -> tuple[SiamDFF, dict[str, Any]]:
  """The network and its averaged weights.

  Args:
    checkpoint: a training workdir or a checkpoint inside one.
    config: another config than the checkpoint's own; it must give the same arrays.

  Raises:
    UserError: no checkpoint there, or one that does not fit the config.
  """
  config = config or trained.load_config(checkpoint)
  model = build(config.model)
  return model, trained.load_variables(checkpoint, abstract_variables(model))
