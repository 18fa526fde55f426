"""The size of the target over time, and the style of its box.

What a box includes differs between annotators (and users): some are loose, some tight, and a network has a style of its
own. The first box shows the wanted one. So the predicted size is modelled as size times style, both unknown: at first a
prediction that differs from the first box tells about the style, and only what changes later about the size. With
logarithms that is a Kalman filter with two states, a size that drifts and a style that does not (our choice).
"""

import flax
import jax
import jax.numpy as jnp
import ml_collections


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker.size` may set: standard deviations of logarithms (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      drift=0.004,  # Of the size, per frame.
      style=0.2,  # Of the predicted by the wanted size.
      noise=1.0,  # Of a prediction, at a score of 1.
      first=0.15,  # Of the first box.
  ))


@flax.struct.dataclass
class SizeState:
  """Attributes:

    log_wh: [2] logarithms of width and height in frame pixels, in the style of the first box.
    log_style: [2] logarithms of what predictions are larger by.
    covariance: [2, 2] of (log_wh, log_style), the same for both axes.
  """

  log_wh: jax.Array
  log_style: jax.Array
  covariance: jax.Array

  @property
  def wh(self) -> jax.Array:
    """[2] width and height in frame pixels."""
    return jnp.exp(self.log_wh)


def init(wh: jax.Array, config: ml_collections.ConfigDict) -> SizeState:
  """From the first box's width and height [2], frame pixels."""
  covariance = jnp.diag(jnp.array([config.first, config.style], jnp.float32) ** 2)
  return SizeState(jnp.log(wh), jnp.zeros(2), covariance)


def update(state: SizeState, predicted_wh: jax.Array, score: jax.Array, config: ml_collections.ConfigDict) -> SizeState:
  """One frame further.

  Args:
    state: of the frame before.
    predicted_wh: [2] the network's size of the target, frame pixels.
    score: [] 0..1; the variance of a prediction is that of a sure one divided by it.
    config: as `default_config`.
  """
  prior = state.covariance + jnp.diag(jnp.array([config.drift**2, 0.0], jnp.float32))
  # A prediction measures the sum of both states.
  common = prior.sum(1)  # [2] Covariance of either state with their sum.
  gain = common / (common.sum() + config.noise**2 / jnp.maximum(score, 1e-3))
  surprise = jnp.log(predicted_wh) - state.log_wh - state.log_style
  return SizeState(state.log_wh + gain[0] * surprise, state.log_style + gain[1] * surprise,
                   prior - gain[:, None] * common)
