"""CWD, channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256), for comparison.

Each channel's map becomes a distribution over positions (softmax with a temperature); KL from the student's to the
teacher's, times temperature squared, mean over channels and examples, summed over levels. Applied to both branches
(ours). The weight is ours too: the usual 50 for the features of a segmentation network makes 300 to 600 of our six maps
at initialisation, 0.2 the order of the task loss.
"""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.distillation.pairs import feature_pairs
from siamdff_jax.distillation.terms import weighted

WEIGHTS = {"channel": 0.2}


class ChannelWise(nn.Module):
  """The channel-wise distiller; its term: channel.

  Attributes:
    weights: by term name; what is missing is taken from `WEIGHTS`.
    temperature: of the softmax over positions.
  """

  weights: Mapping[str, float] = flax.core.FrozenDict()
  temperature: float = 4.0

  @nn.compact
  def __call__(self, student: Mapping[str, Any], teacher: Mapping[str, Any], template_wh: jax.Array,
               search_box_ltrb: jax.Array, present: jax.Array) -> dict[str, jax.Array]:
    """As `contextual.TargetAwareDistiller`; the target plays no part."""
    del template_wh, search_box_ltrb, present
    total = jnp.zeros(())
    for pair in feature_pairs(student, teacher):
      ours, theirs = pair.student, pair.teacher
      if ours.shape[-1] != theirs.shape[-1]:  # As published: no adapter between equal widths.
        ours = nn.Dense(theirs.shape[-1], name=f"adapt_{pair.name}")(ours)
      ours, theirs = self._log_shares(ours), self._log_shares(theirs)
      divergence = (jnp.exp(theirs) * (theirs - ours)).sum(1)  # [B, C]
      total += self.temperature**2 * divergence.mean()
    return weighted({"channel": total}, self.weights, WEIGHTS)

  def _log_shares(self, x: jax.Array) -> jax.Array:
    """Every channel's map as logarithms of a distribution over positions, [B, H, W, C] -> [B, HW, C]."""
    return jax.nn.log_softmax(x.reshape(x.shape[0], -1, x.shape[-1]) / self.temperature, axis=1)
