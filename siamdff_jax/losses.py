"""The task losses: class, box, quality, presence. All in float32, every term by name."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

from siamdff_jax import boxes, targets


def focal(logit: jax.Array, positive: jax.Array, negative: jax.Array, alpha: float = 0.25, gamma: float = 2.0):
  """Focal loss (Lin et al. 2017) summed over cells and divided by the number of positives (at least 1 per batch).

  Args:
    logit: [B, n, n].
    positive, negative: [B, n, n] masks; cells in neither do not count.
    alpha: weight of the positives.
    gamma: how strongly easy cells are played down.
  """
  p = jax.nn.sigmoid(logit)
  hard_positive = alpha * (1 - p) ** gamma * optax.sigmoid_binary_cross_entropy(logit, jnp.ones_like(logit))
  hard_negative = (1 - alpha) * p**gamma * optax.sigmoid_binary_cross_entropy(logit, jnp.zeros_like(logit))
  return hard_positive * positive + hard_negative * negative, positive.sum()


def balanced_bce(logit: jax.Array, positive: jax.Array, negative: jax.Array):
  """Cross-entropy in which positives and negatives of the batch weigh one half each (SiamCAR's class loss)."""
  bce = lambda label: optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label))
  share = lambda mask: mask / jnp.maximum(mask.sum(), 1.0)
  return 0.5 * bce(1.0) * share(positive) + 0.5 * bce(0.0) * share(negative), jnp.ones(())


def task_losses(out: dict, batch: dict, config: ml_collections.ConfigDict, search_side: int) -> dict[str, jax.Array]:
  """The weighted task losses and, unweighted, what one wants to watch.

  Args:
    out: the network's outputs.
    batch: "search_box_ltrb" [B, 4] in search-crop coordinates, "present" [B].
    config: `config.loss`: class_kind, box_kind, quality_kind, and weights of class, box, quality, presence.
    search_side: pixels of the search crop.

  Returns:
    {"loss/class", "loss/box", "loss/quality", "loss/presence"} weighted scalars and "iou", the mean IoU of positives.
  """
  present = batch["present"].astype(jnp.float32)
  side = out["class_logit"].shape[1]
  labels = targets.assign(batch["search_box_ltrb"], present, side, search_side)
  positive, negative = labels["positive"], labels["negative"]
  count = jnp.maximum(positive.sum(), 1.0)

  kind = {"focal": focal, "balanced_bce": balanced_bce}[config.class_kind]
  cells, divisor = kind(out["class_logit"], positive, negative)
  class_loss = cells.sum() / jnp.maximum(divisor, 1.0)

  predicted = targets.boxes_from_ltrb(out["ltrb"], search_side)  # [B, n, n, 4]
  truth = jnp.broadcast_to(batch["search_box_ltrb"][:, None, None], predicted.shape)
  overlap = boxes.iou(predicted, truth)
  if config.box_kind == "giou":
    box_cells = 1 - boxes.giou(predicted, truth)
  elif config.box_kind == "giou+nwd":
    box_cells = 1.5 - boxes.giou(predicted, truth) - 0.5 * boxes.nwd(predicted, truth, config.nwd_constant)
  else:
    raise ValueError(f"loss.box_kind is {config.box_kind!r}, expected 'giou' or 'giou+nwd'")
  box_loss = (box_cells * positive).sum() / count

  quality_label = labels["centerness"] if config.quality_kind == "centerness" else jax.lax.stop_gradient(overlap)
  quality = optax.sigmoid_binary_cross_entropy(out["quality_logit"], quality_label)
  quality_loss = (quality * positive).sum() / count
  presence_loss = optax.sigmoid_binary_cross_entropy(out["presence_logit"], present).mean()
  weights = config.weights
  return {
      "loss/class": weights["class"] * class_loss,
      "loss/box": weights["box"] * box_loss,
      "loss/quality": weights["quality"] * quality_loss,
      "loss/presence": weights["presence"] * presence_loss,
      "iou": (overlap * positive).sum() / count,
  }
