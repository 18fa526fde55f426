"""Is the target there? What the network says of it, and how far its peak of the score map stands out.

How far is the logarithm of the peak's score over the best one at least a target's size away: the peak-to-sidelobe
ratio of Bolme et al., "Visual Object Tracking using Adaptive Correlation Filters", CVPR 2010, with the best sidelobe
for their mean and deviation (our choice). Scores are lower in images unlike those of the training, a ratio of them is
not.
"""

import jax
import jax.numpy as jnp

from siamdff_jax.tracking.settings import BeliefSettings

LEAST_SCORE = 1e-3  # Lower ones are all alike.
_LARGEST = 5.0  # Larger ratios are all alike.


def ratio(score: jax.Array, centre: jax.Array, cell: jax.Array, size: jax.Array) -> jax.Array:
  """Log peak-to-sidelobe ratio, [].

  Args:
    score: [N] of the cells of a window, 0..1.
    centre: [N, 2] of their boxes, frame pixels.
    cell: int32 [], the peak.
    size: [] of the target, frame pixels.
  """
  apart = jnp.abs(centre - centre[cell]).max(-1) >= size
  sidelobe = jnp.where(apart, score, 0.0).max()
  found = jnp.log(jnp.maximum(score[cell], LEAST_SCORE) / jnp.maximum(sidelobe, LEAST_SCORE))
  return jnp.minimum(found, _LARGEST)


def log_odds(logit: jax.Array, ratios: jax.Array, settings: BeliefSettings) -> jax.Array:
  """The log odds that windows show the target: a logistic regression, fitted by scripts/calibrate.py.

  Args:
    logit: [K] the network's.
    ratios: [K] see `ratio`.
    settings: of the belief.
  """
  return settings.presence_scale * logit + settings.presence_bias + settings.presence_ratio * ratios
