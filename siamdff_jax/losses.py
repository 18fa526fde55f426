"""The task losses: class, box, quality, presence. All in float32, every term by name."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from input_pipeline.errors import UserError
from input_pipeline.geometry import area, intersection, iou
from siamdff_jax import targets

KINDS = {"class_kind": ("focal", "balanced_bce"), "box_kind": ("giou", "giou+nwd"),
         "quality_kind": ("centerness", "iou")}


def focal(logit: jax.Array, positive: jax.Array, negative: jax.Array, counts: Mapping[str, jax.Array],
          alpha: float = 0.25, gamma: float = 2.0) -> jax.Array:
  """Focal loss (Lin et al. 2017), summed over cells and divided by the number of positives.

  Args:
    logit: [B, n, n].
    positive, negative: [B, n, n] masks; cells in neither do not count.
    counts: from `label_counts`.
    alpha: weight of the positives.
    gamma: how strongly easy cells are played down.
  """
  p = jax.nn.sigmoid(logit)
  hard_positive = alpha * (1 - p) ** gamma * optax.sigmoid_binary_cross_entropy(logit, jnp.ones_like(logit))
  hard_negative = (1 - alpha) * p**gamma * optax.sigmoid_binary_cross_entropy(logit, jnp.zeros_like(logit))
  return (hard_positive * positive + hard_negative * negative).sum() / counts["positive"]


def balanced_bce(logit: jax.Array, positive: jax.Array, negative: jax.Array, counts: Mapping[str, jax.Array]
                 ) -> jax.Array:
  """Cross-entropy in which positives and negatives weigh one half each (SiamCAR's class loss); arguments as `focal`."""

  def bce(label: float, mask: jax.Array) -> jax.Array:
    return (optax.sigmoid_binary_cross_entropy(logit, jnp.full_like(logit, label)) * mask).sum()

  return 0.5 * bce(1.0, positive) / counts["positive"] + 0.5 * bce(0.0, negative) / counts["negative"]


def label_counts(batch: Mapping[str, jax.Array], side: int, search_side: int, axis_name: str | None = None
                 ) -> dict[str, jax.Array]:
  """How many cells of the batch are "positive" and "negative", at least 1: what the losses are divided by.

  They depend on the labels alone, so that the step can count over the whole (global) batch before it splits the batch
  over devices or accumulation rounds; the parts then add up to the same loss.

  Args:
    batch: "search_box_ltrb" [B, 4], "present" [B].
    side: cells per side of the response map.
    search_side: pixels of the search crop.
    axis_name: the mapped axis that the batch is split over, or None; the counts are of all its parts together.
  """
  labels = targets.assign(batch["search_box_ltrb"], batch["present"], side, search_side)
  counts = {key: labels[key].sum() for key in ("positive", "negative")}
  if axis_name:
    counts = jax.lax.psum(counts, axis_name)
  return {key: jnp.maximum(count, 1.0) for key, count in counts.items()}


def task_losses(out: Mapping[str, Any], batch: Mapping[str, jax.Array], counts: Mapping[str, jax.Array],
                config: ml_collections.ConfigDict, search_side: int) -> dict[str, jax.Array]:
  """The weighted task losses and, unweighted, what one wants to watch.

  Args:
    out: the network's outputs.
    batch: "search_box_ltrb" [B, 4] in search-crop coordinates, "present" [B].
    counts: from `label_counts`.
    config: `config.loss`: class_kind, box_kind, quality_kind, and weights of class, box, quality, presence.
    search_side: pixels of the search crop.

  Returns:
    {"loss/class", "loss/box", "loss/quality", "loss/presence"} weighted scalars and "iou", the mean IoU of positives.

  Raises:
    UserError: an unknown kind.
  """
  for option, known in KINDS.items():
    if config[option] not in known:
      raise UserError(f"loss.{option} is {config[option]!r}, expected one of {known}")
  present = batch["present"].astype(jnp.float32)
  labels = targets.assign(batch["search_box_ltrb"], present, out["class_logit"].shape[1], search_side)
  positive = labels["positive"]
  class_kind = {"focal": focal, "balanced_bce": balanced_bce}[config.class_kind]

  predicted = targets.boxes_from_ltrb(out["ltrb"], search_side)  # [B, n, n, 4]
  truth = jnp.broadcast_to(batch["search_box_ltrb"][:, None, None], predicted.shape)
  overlap = iou(predicted, truth)
  box_cells = 1 - giou(predicted, truth)
  if config.box_kind == "giou+nwd":
    box_cells += 0.5 * (1 - nwd(predicted, truth, config.nwd_constant))

  quality_label = labels["centerness"] if config.quality_kind == "centerness" else jax.lax.stop_gradient(overlap)
  quality_cells = optax.sigmoid_binary_cross_entropy(out["quality_logit"], quality_label)

  def over_positives(cells: jax.Array) -> jax.Array:
    return (cells * positive).sum() / counts["positive"]

  weights = config.weights
  return {
      "loss/class": weights["class"] * class_kind(out["class_logit"], positive, labels["negative"], counts),
      "loss/box": weights["box"] * over_positives(box_cells),
      "loss/quality": weights["quality"] * over_positives(quality_cells),
      "loss/presence": weights["presence"] * optax.sigmoid_binary_cross_entropy(out["presence_logit"], present).mean(),
      "iou": over_positives(overlap),
  }


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
  """Generalised IoU (Rezatofighi et al. 2019) of `ltrb` boxes, in -1..1."""
  both = intersection(a, b)
  union = area(a) + area(b) - both
  hull = jnp.prod(jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2]), -1)
  return both / jnp.maximum(union, 1e-9) - (hull - union) / jnp.maximum(hull, 1e-9)


def nwd(a: jax.Array, b: jax.Array, constant: float) -> jax.Array:
  """Normalised Gaussian Wasserstein distance (Wang et al. 2021) of `ltrb` boxes, in 0..1; 1 for equal boxes.

  Each box is a Gaussian with its centre as mean and half its sides as deviations. Smooth also where tiny boxes do not
  overlap.

  Args:
    a, b: [..., 4].
    constant: the scale in pixels, about the mean size of the targets in the crop.
  """
  centre = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
  wh = ((a[..., 2:] - a[..., :2]) - (b[..., 2:] - b[..., :2])) / 2
  squared = (centre**2).sum(-1) + (wh**2).sum(-1)
  return jnp.exp(-jnp.sqrt(squared + 1e-9) / constant)
