"""The training state, one pytree, and the optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct

from input_pipeline.errors import UserError


class TrainState(struct.PyTreeNode):
  """Everything a step reads and writes; saved and restored as a whole.

  Attributes:
    step: int32 [], steps taken.
    params: {"student": the network's, "distiller": the distiller's (empty without one)}.
    batch_stats: the network's running statistics (empty without batch normalisation).
    opt_state: optax's.
    ema: the moving average of params["student"], which is what gets evaluated and exported.
    bad_steps: int32 [], non-finite steps skipped in a row.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any
  bad_steps: jax.Array


def schedule(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
  """Linear warm-up, then cosine to `final_fraction` of the peak."""
  warmup = min(config.warmup_steps, steps - 1)
  return optax.warmup_cosine_decay_schedule(
      0.0, config.learning_rate, warmup, steps, config.learning_rate * config.final_fraction)


def optimizer(config: ml_collections.ConfigDict, steps: int, learning_rate: optax.Schedule | None = None
              ) -> optax.GradientTransformation:
  """AdamW or SGD with clipping, weight decay on kernels only, and a learning rate of its own for the backbone.

  Args:
    config: `config.optimizer`.
    steps: of the whole run, for the schedule.
    learning_rate: instead of the config's schedule; may close over traced values (a population's members).
  """

  def is_kernel(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)

  def make(learning_rate: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
    if config.kind == "adamw":
      rule = optax.adamw(learning_rate, weight_decay=weight_decay, mask=is_kernel)
    elif config.kind == "sgd":
      decay = optax.add_decayed_weights(weight_decay, mask=is_kernel)
      rule = optax.chain(decay, optax.sgd(learning_rate, momentum=0.9))
    else:
      raise UserError(f"optimizer.kind is {config.kind!r}, expected 'adamw' or 'sgd'")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule, _scale_backbone(config))

  # Hyper-parameters live in the state: a sweep changes them without a new trace.
  return optax.inject_hyperparams(make)(
      learning_rate=learning_rate or schedule(config, steps), weight_decay=config.weight_decay)


def _scale_backbone(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Updates of the backbone times `backbone_factor`, and zero for its first `backbone_freeze_steps`."""

  def factor(step: jax.Array) -> jax.Array:
    return jnp.where(step < config.backbone_freeze_steps, 0.0, config.backbone_factor)

  def labels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "backbone" if any(getattr(k, "key", None) == "backbone" for k in path) else "rest", params)

  return optax.multi_transform({"backbone": optax.scale_by_schedule(factor), "rest": optax.identity()}, labels)
