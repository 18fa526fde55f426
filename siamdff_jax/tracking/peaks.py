"""How far the target's peak of the score map stands out: one that something else rivals is doubtful.

The logarithm of its score over the best one at least a target's size away: the peak-to-sidelobe ratio of Bolme et al.,
"Visual Object Tracking using Adaptive Correlation Filters", CVPR 2010, with the best sidelobe for their mean and
deviation (our choice). Scores are lower in images unlike those of the training, a ratio of them is not.
"""

import jax
import jax.numpy as jnp
import ml_collections

LEAST_SCORE = 1e-3  # Lower ones are all alike.
_FAR = 0.25  # From the expected place, as `motion.nearness` has it: 1.7 deviations.


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker.peak` may set (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      weight=0.0,  # Of what the ratio falls short of `enough`, taken off the presence logit.
      enough=2.0,
      far=0.0,  # The least ratio of a peak far from the expected place: what jumps must be beyond doubt.
  ))


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
  return jnp.log(jnp.maximum(score[cell], LEAST_SCORE) / jnp.maximum(sidelobe, LEAST_SCORE))


def presence_logit(logit: jax.Array, ratios: jax.Array, expected: jax.Array,
                   config: ml_collections.ConfigDict) -> jax.Array:
  """The presence logit of windows, less where their peaks do not stand out; minus infinity for a doubtful jump.

  Args:
    logit, ratios: [K].
    expected: [K] how near the peaks are to the expected place, 0..1.
    config: as `default_config`.
  """
  less = config.weight * (jnp.minimum(ratios, config.enough) - config.enough)
  return jnp.where((expected < _FAR) & (ratios < config.far), -jnp.inf, logit + less)
