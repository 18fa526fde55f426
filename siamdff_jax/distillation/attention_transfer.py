"""AT, attention transfer (Zagoruyko & Komodakis, ICLR 2017, arXiv 1612.03928), for comparison.

Activation-based, sum of squares (p = 2), as in the authors' released code: per level the mean squared difference of
the two l2-normalised maps, times beta = 1000, summed over levels. Applied to both branches (ours).
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.distillation.pairs import feature_pairs
from siamdff_jax.distillation.terms import weighted

WEIGHTS = {"attention": 1000.0}  # beta


def attention_map(features: jax.Array) -> jax.Array:
  """Mean over channels of the squares, with l2 norm 1 over positions: [B, H, W, C] -> [B, H*W]."""
  energy = (features**2).mean(-1).reshape(features.shape[0], -1)
  # The floor under the root keeps the gradient of an all-zero map finite.
  return energy * jax.lax.rsqrt(jnp.maximum((energy**2).sum(-1, keepdims=True), 1e-24))


class AttentionTransfer(nn.Module):
  """The distiller of attention transfer; its term: attention. No parameters: maps of any width can be compared.

  Attributes:
    weights: by term name; what is missing is taken from `WEIGHTS`.
  """

  weights: Mapping[str, float] = flax.core.FrozenDict()

  @nn.compact
  def __call__(self, student: Mapping[str, Any], teacher: Mapping[str, Any], template_wh: jax.Array,
               search_box_ltrb: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
    """As `contextual.TargetAwareDistiller`; the target plays no part."""
    del template_wh, search_box_ltrb, present
    total = sum((((attention_map(pair.student) - attention_map(pair.teacher)) ** 2).mean()
                 for pair in feature_pairs(student, teacher)), jnp.zeros(()))
    return weighted({"attention": total}, self.weights, WEIGHTS)
