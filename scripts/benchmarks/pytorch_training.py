"""The task loss and the training step of `siamdff_jax/{losses,targets,training/step}.py`, written plainly in PyTorch.

Same work per step: pixels to floats, forward in training mode, focal + GIoU + centre-ness + presence, backward,
clipping by the global norm, AdamW with decay on kernels only, moving average of the weights. The learning rate is
constant, and a non-finite step is not skipped.
"""

from collections.abc import Callable

import ml_collections
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.pytorch_tracker import SiamDFF
from input_pipeline.errors import UserError
from siamdff_jax.models.backbone import STRIDE


def assign(box_ltrb: Tensor, present: Tensor, side: int, search_side: int) -> tuple[Tensor, ...]:
  """Labels as `targets.assign` gives them.

  Returns:
    Cell centres [n, n, 2], and "positive", "negative", "centerness" [B, n, n].
  """
  axis = search_side / 2 + STRIDE * (torch.arange(side, device=box_ltrb.device) - (side - 1) / 2)
  grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
  box = box_ltrb[:, None, None]
  size, exists = box[..., 2:] - box[..., :2], present[:, None, None] > 0
  offset = grid - (box[..., :2] + box[..., 2:]) / 2
  nearest = ((offset >= -STRIDE / 2) & (offset < STRIDE / 2)).all(-1)
  inside = (offset.abs() < size / 2).all(-1)
  positive = ((offset.abs() < size / 4).all(-1) | nearest) & exists
  negative = ~(inside | nearest) | ~exists
  lt, rb = (grid - box[..., :2]).clamp(min=0), (box[..., 2:] - grid).clamp(min=0)
  ratio = torch.minimum(lt, rb) / torch.maximum(lt, rb).clamp(min=1e-6)
  return grid, positive.float(), negative.float(), ratio.prod(-1).sqrt()


def _area(lower: Tensor, upper: Tensor) -> Tensor:
  return (upper - lower).clamp(min=0).prod(-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
  """Generalised IoU of `ltrb` boxes [..., 4] -> [...]."""
  both = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
  union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
  hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
  return both / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def task_losses(out: dict[str, Tensor], batch: dict[str, Tensor], weights: dict[str, float], search_side: int
                ) -> dict[str, Tensor]:
  """The weighted losses "class" (focal), "box" (GIoU), "quality" (centre-ness) and "presence", scalars."""
  box, present = batch["search_box_ltrb"], batch["present"]
  grid, positive, negative, centerness = assign(box, present, out["class_logit"].shape[1], search_side)
  count = positive.sum().clamp(min=1)
  bce = F.binary_cross_entropy_with_logits
  logit = out["class_logit"]
  p = logit.sigmoid()
  hit, miss = F.softplus(-logit), F.softplus(logit)  # Cross-entropies with labels 1 and 0.
  focal = 0.25 * (1 - p) ** 2 * hit * positive + 0.75 * p**2 * miss * negative
  predicted = torch.cat([grid - out["ltrb"][..., :2], grid + out["ltrb"][..., 2:]], -1)
  box_cells = 1 - giou(predicted, box[:, None, None])
  quality_cells = bce(out["quality_logit"], centerness, reduction="none")
  return {
      "class": weights["class"] * focal.sum() / count,
      "box": weights["box"] * (box_cells * positive).sum() / count,
      "quality": weights["quality"] * (quality_cells * positive).sum() / count,
      "presence": weights["presence"] * bce(out["presence_logit"], present),
  }


class TrainingStep:
  """One step at a time on a network.

  Args:
    network: trained in place.
    config: the whole config.
    wrap: applied to the function from a batch to the loss; `torch.compile` or nothing.
    autocast: run the network in bfloat16 autocast.

  Raises:
    UserError: a loss or optimizer other than the comparison's.
  """

  def __init__(self, network: SiamDFF, config: ml_collections.ConfigDict, wrap: Callable = lambda f: f,
               autocast: bool = False):
    kinds = (config.loss.class_kind, config.loss.box_kind, config.loss.quality_kind, config.optimizer.kind)
    if kinds != ("focal", "giou", "centerness", "adamw"):
      raise UserError(f"the PyTorch comparison trains by focal, giou, centerness and adamw; the config has {kinds}")
    self.network, self.config, self.autocast = network.train(), config, autocast
    self.parameters = list(network.parameters())
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    groups = [
        {"params": [p for name, p in network.named_parameters()
                    if (p.ndim > 1) == kernel and name.startswith("backbone.") == backbone],
         "lr": rate * (config.optimizer.backbone_factor if backbone else 1.0), "weight_decay": decay if kernel else 0.0}
        for kernel in (True, False) for backbone in (True, False)]
    self.optimizer = torch.optim.AdamW(groups, fused=True)
    self.average = [p.detach().clone() for p in self.parameters]
    self.losses = wrap(self._losses)

  def _losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    template, search = (batch[name].float() / 255 for name in ("template", "search"))
    with torch.autocast(template.device.type, torch.bfloat16, enabled=self.autocast):
      out = self.network(template, batch["template_wh"], search)
    return task_losses(out, batch, self.config.loss.weights, self.config.model.search_side)

  def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes a step.

    Args:
      batch: "template", "search" uint8 [B, 1, S, S]; "template_wh" [B, 2], "search_box_ltrb" [B, 4], "present" [B].

    Returns:
      "loss" and "grad_norm" (before clipping), scalars.
    """
    loss = sum(self.losses(batch).values())
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip_norm)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
      torch._foreach_lerp_(self.average, self.parameters, 1 - self.config.train.ema_decay)
    return {"loss": loss.detach(), "grad_norm": norm}
