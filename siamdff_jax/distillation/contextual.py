"""The target-aware contextual attention distiller.

The abstract of arXiv 2512.04581 fixes: tracking-specific, target-aware, contextual attention, the target prior goes
from teacher to student at each level of the backbone, free of cost at inference. The formulas and weights are our
choice; the attentions and the two regions come from FGD (Yang et al. 2022), the context block from GCNet.

Unlike FGD every term is a mean over cells, channels, levels and branches, and both feature maps are divided by the
teacher's root mean square of the example, so neither map size nor the teacher's scale changes what a weight means.
Every term is also a mean over examples: gradients of parts of a batch average to the gradient of the batch.
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.distillation.attention import channel_attention, spatial_attention
from siamdff_jax.distillation.masks import Masks, search_masks, template_masks
from siamdff_jax.distillation.pairs import Pair, feature_pairs
from siamdff_jax.distillation.terms import weighted
from siamdff_jax.models.dsfam import ContextBlock

# At initialisation each term is about 0.1-1, the sum about 1-3, the order of the task loss (our choice).
WEIGHTS = {
    "feature_foreground": 0.5,
    "feature_background": 0.25,
    "attention": 0.5,
    "context": 0.25,
    "target_kl": 1.0,
}


def target_response(template: jax.Array, foreground: jax.Array, search: jax.Array, temperature: float) -> jax.Array:
  """Where in the search frame it looks like the target.

  Args:
    template: [B, h, w, C] template features.
    foreground: [B, h, w] weights that sum to 1 inside the target's box.
    search: [B, H, W, C] search features.
    temperature: of the softmax over positions; cosines differ by about 0.1.

  Returns:
    [B, H*W] logarithms of a distribution over positions: softmax of the cosine between the target's descriptor
    (template features pooled inside the box) and each cell.
  """
  descriptor = jnp.einsum("bij,bijc->bc", foreground, template)
  cosine = jnp.einsum("bijc,bc->bij", _unit(search), _unit(descriptor))
  return jax.nn.log_softmax(cosine.reshape(cosine.shape[0], -1) / temperature, axis=-1)


def _unit(x: jax.Array) -> jax.Array:
  """Vectors [..., C] of length 1; the zero vector stays."""
  return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-6)


class TargetAwareDistiller(nn.Module):
  """Our distiller. Its terms: feature_foreground, feature_background, attention, context, target_kl (docs/method.md).

  Attributes:
    weights: by term name; what is missing is taken from `WEIGHTS`.
    temperature: of the spatial and channel attention, in units of the teacher's root mean square (FGD has 0.5 and 0.8
      on features as they are; 1 keeps single strong channels from taking all the weight; our choice).
    target_temperature: of the target's response distribution.
  """

  weights: Mapping[str, float] = flax.core.FrozenDict()
  temperature: float = 1.0
  target_temperature: float = 0.1

  @nn.compact
  def __call__(self, student: Mapping[str, Any], teacher: Mapping[str, Any], template_wh: jax.Array,
               search_box_ltrb: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
    """Weighted float32 scalars by term name; their sum is the distillation loss.

    Args:
      student, teacher: outputs of `SiamDFF` on the same batch; no gradient reaches the teacher's.
      template_wh: [B, 2] width and height of the target in pixels of the template crop; it is at its centre.
      search_box_ltrb: [B, 4] its sides in continuous coordinates of the search crop.
      present: [B] 1 where the search crop holds the target. Where it is 0, the search branch is all background and
        the example takes no part in target_kl.

    Raises:
      UserError: see `feature_pairs`, or an unknown weight.
    """
    adapted = [self._adapt(pair) for pair in feature_pairs(student, teacher)]
    template, search = (next(p for p in adapted if p.branch == b).teacher.shape[1] for b in ("template", "search"))
    masks = {"template": template_masks(template_wh, template),
             "search": search_masks(search_box_ltrb, present, search)}
    parts = [self._compare(pair, masks[pair.branch]) for pair in adapted]
    terms = {name: jnp.stack([part[name] for part in parts]).mean() for name in parts[0]}

    by_name = {pair.name: pair for pair in adapted}
    levels = sorted({pair.level for pair in adapted})
    divergences = [self._divergence(by_name[f"template{level}"], by_name[f"search{level}"],
                                    masks["template"].foreground) for level in levels]  # Each [B].
    # Divided by all examples, not by those present, so that it does not matter how the batch is split over devices.
    terms["target_kl"] = (jnp.stack(divergences).mean(0) * (present > 0)).mean()
    return weighted(terms, self.weights, WEIGHTS)

  def _adapt(self, pair: Pair) -> Pair:
    """The student's features in the teacher's width, both in units of the teacher's root mean square."""
    student = nn.Dense(pair.teacher.shape[-1], name=f"adapt_{pair.name}")(pair.student)
    scale = jax.lax.rsqrt((pair.teacher**2).mean((1, 2, 3), keepdims=True) + 1e-6)
    return pair._replace(student=student * scale, teacher=pair.teacher * scale)

  def _compare(self, pair: Pair, masks: Masks) -> dict[str, jax.Array]:
    """The unweighted terms of one level and branch."""
    ours, theirs = pair.student, pair.teacher
    spatial, channel = spatial_attention(theirs, self.temperature), channel_attention(theirs, self.temperature)
    # Cells weighted by the teacher's attentions, which have mean 1.
    error = spatial * (channel[:, None, None, :] * (theirs - ours) ** 2).mean(-1)  # [B, H, W]
    attention = (jnp.abs(spatial - spatial_attention(ours, self.temperature)).mean()
                 + jnp.abs(channel - channel_attention(ours, self.temperature)).mean())
    context = (theirs + ContextBlock(name=f"teacher_context_{pair.name}")(theirs)
               - ours - ContextBlock(name=f"student_context_{pair.name}")(ours))
    return {
        "feature_foreground": (masks.foreground * error).sum((1, 2)).mean(),
        "feature_background": (masks.background * error).sum((1, 2)).mean(),
        "attention": attention,
        "context": (context**2).mean(),
    }

  def _divergence(self, template: Pair, search: Pair, foreground: jax.Array) -> jax.Array:
    """KL of the student's target response from the teacher's, [B]."""
    ours = target_response(template.student, foreground, search.student, self.target_temperature)
    theirs = target_response(template.teacher, foreground, search.teacher, self.target_temperature)
    return (jnp.exp(theirs) * (theirs - ours)).sum(-1)
