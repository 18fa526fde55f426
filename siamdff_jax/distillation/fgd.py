"""FGD, focal and global distillation for detectors (Yang et al., CVPR 2022, arXiv 2111.11837), for comparison.

Its formulas, sums included, and the weights its authors ship for the anchor-free FCOS (alpha 1.6e-3, beta 8e-4,
gamma 8e-4, lambda 8e-6, temperature 0.8; 0.5 for anchor-based detectors). Applied to both branches, which is ours: the
paper knows no template. The foreground is every cell that the box touches, as the paper says; the released code takes
one row and column more and exchanges the axes, which we do not repeat.
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.distillation.attention import channel_attention, spatial_attention
from siamdff_jax.distillation.masks import search_masks, template_masks
from siamdff_jax.distillation.pairs import Pair, feature_pairs
from siamdff_jax.distillation.terms import weighted
from siamdff_jax.models.dsfam import ContextBlock

WEIGHTS = {
    "foreground": 1.6e-3,  # alpha
    "background": 8e-4,  # beta
    "attention": 8e-4,  # gamma
    "relation": 8e-6,  # lambda
}


class FGD(nn.Module):
  """FGD's distiller. Its terms: foreground, background, attention, relation.

  Attributes:
    weights: by term name; what is missing is taken from `WEIGHTS`.
    temperature: of the spatial and channel attention.
  """

  weights: Mapping[str, float] = flax.core.FrozenDict()
  temperature: float = 0.8

  @nn.compact
  def __call__(self, student: Mapping[str, Any], teacher: Mapping[str, Any], template_wh: jax.Array,
               search_box_ltrb: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
    """As `contextual.TargetAwareDistiller`; without a target the search branch has no foreground term."""
    parts = []
    for pair in feature_pairs(student, teacher):
      side = pair.teacher.shape[1]
      if pair.branch == "template":
        cover = template_masks(template_wh, side).cover
      else:
        cover = search_masks(search_box_ltrb, present, side).cover
      parts.append(self._compare(pair, (cover > 0).astype(jnp.float32)))
    terms = {name: sum((part[name] for part in parts), jnp.zeros(())) for name in WEIGHTS}
    return weighted(terms, self.weights, WEIGHTS)

  def _compare(self, pair: Pair, inside: jax.Array) -> dict[str, jax.Array]:
    """The unweighted terms of one level and branch: sums over cells and channels, means over examples.

    Args:
      pair: the features.
      inside: [B, H, W] 1 in the cells of the target.
    """
    ours, theirs = pair.student, pair.teacher
    if ours.shape[-1] != theirs.shape[-1]:  # As published: no adapter between equal widths.
      ours = nn.Dense(theirs.shape[-1], name=f"adapt_{pair.name}")(ours)
    spatial, channel = spatial_attention(theirs, self.temperature), channel_attention(theirs, self.temperature)
    error = spatial * (channel[:, None, None, :] * (theirs - ours) ** 2).sum(-1)  # [B, H, W]
    attention = (jnp.abs(spatial - spatial_attention(ours, self.temperature)).sum((1, 2))
                 + jnp.abs(channel - channel_attention(ours, self.temperature)).sum(-1))
    relation = (theirs + ContextBlock(reduction=2, name=f"teacher_context_{pair.name}")(theirs)
                - ours - ContextBlock(reduction=2, name=f"student_context_{pair.name}")(ours))
    return {
        "foreground": _region(error, inside),
        "background": _region(error, 1 - inside),
        "attention": attention.mean(),
        "relation": (relation**2).sum((1, 2, 3)).mean(),
    }


def _region(error: jax.Array, mask: jax.Array) -> jax.Array:
  """A region's error [B, H, W] by its mean, scaled by its own number of cells -> []."""
  return ((mask * error).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1)).mean()
