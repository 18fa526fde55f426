"""Validation in training: the moving average on a fixed set of pairs. It picks the best checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from input_pipeline import geometry, pipeline
from input_pipeline.sampling import PairSampler
from siamdff_jax import losses, targets
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.training.state import TrainState
from siamdff_jax.training.step import network_inputs, total_loss

_VALIDATION_STREAM = 1  # Added to the seed: a stream of pairs apart from the training's.


def validation(model: SiamDFF, config: ml_collections.ConfigDict, sampler: PairSampler | None
               ) -> Callable[[TrainState], dict[str, float] | None]:
  """A function state -> {"iou", "loss"} of the moving average on fixed, unaugmented pairs; None without data.

  Args:
    model: built without an axis name.
    config: the whole config.
    sampler: of the validation data, or None.
  """
  if sampler is None:
    return lambda state: None
  count = config.train.validation_pairs
  examples = [pipeline.example(sampler, model.template_side, model.search_side, config.seed + _VALIDATION_STREAM, i)
              for i in range(count)]
  size = min(count, config.train.batch_size)
  batches = [{key: np.stack([e[key] for e in examples[i:i + size]]) for key in examples[0]}
             for i in range(0, count - size + 1, size)]

  @jax.jit
  def evaluate(params: Any, batch_stats: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    out: Any = model.apply({"params": params, "batch_stats": batch_stats}, *network_inputs(batch, model.prior_channel))
    counts = losses.label_counts(batch, out["class_logit"].shape[1], model.search_side)
    terms = losses.task_losses(out, batch, counts, config.loss, model.search_side)
    return {"iou": peak_iou(out, batch, model.search_side),
            "loss": total_loss(terms)}

  return lambda state: average([evaluate(state.ema, state.batch_stats, batch) for batch in batches])


def peak_iou(out: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], search_side: int) -> jax.Array:
  """Mean IoU of the best-scored cell's box with the truth, over the positive pairs: what a tracker would get."""
  score = jax.nn.sigmoid(out["class_logit"]) * jax.nn.sigmoid(out["quality_logit"])
  best = score.reshape(score.shape[0], -1).argmax(-1)
  predicted = targets.boxes_from_ltrb(out["ltrb"], search_side).reshape(score.shape[0], -1, 4)
  predicted = jnp.take_along_axis(predicted, best[:, None, None], 1)[:, 0]
  overlap = geometry.iou(predicted, batch["search_box_ltrb"]) * batch["present"]
  return overlap.sum() / jnp.maximum(batch["present"].sum(), 1)


def average(metrics: Sequence[Mapping[str, jax.Array]]) -> dict[str, float]:
  """Means of metrics, each {name: number [] on a device}."""
  host = jax.device_get(metrics)
  return {name: float(np.mean([m[name] for m in host])) for name in host[0]}
