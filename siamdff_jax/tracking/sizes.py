"""The size of the target over time: that of the first box, until the predictions leave no doubt that it changed.

What a box includes differs between annotators (and users), and the first one shows what is wanted here. A network has a
style of its own, and its predictions of a tiny target scatter by a tenth. So a size has play, as worn gears have: the
predictions move it only when they are further from it than that, and then it keeps that distance behind them (our
choice; what else was tried: docs/decisions.md).

The search window follows the predictions themselves (`SizeState.seen_wh`). A predicted size leans towards the window's
and never leaves the range that the training showed; in a window that kept a wrong size, it would confirm itself.
"""

import flax
import jax
import jax.numpy as jnp
import ml_collections


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker.size` may set (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      play=0.2,  # Of the logarithms of width and height.
      rate=0.6,  # How fast the mean of the predictions follows, per frame, at a score of 1.
  ))


@flax.struct.dataclass
class SizeState:
  """Attributes:

    log_wh: [2] logarithms of width and height in frame pixels.
    predicted: [2] the running mean of what the network says they are.
  """

  log_wh: jax.Array
  predicted: jax.Array

  @property
  def wh(self) -> jax.Array:
    """[2] width and height in frame pixels."""
    return jnp.exp(self.log_wh)

  @property
  def seen_wh(self) -> jax.Array:
    """[2] the network's own width and height, frame pixels: what its windows are laid out for."""
    return jnp.exp(self.predicted)


def init(wh: jax.Array) -> SizeState:
  """From the first box's width and height [2], frame pixels."""
  return SizeState(jnp.log(wh), jnp.log(wh))


def update(state: SizeState, predicted_wh: jax.Array, score: jax.Array,
           config: ml_collections.ConfigDict) -> SizeState:
  """One frame further.

  Args:
    state: of the frame before.
    predicted_wh: [2] the network's size of the target, frame pixels.
    score: [] 0..1, how much the prediction counts.
    config: as `default_config`.
  """
  mean = state.predicted + jnp.minimum(config.rate * score, 1) * (jnp.log(predicted_wh) - state.predicted)
  ahead = mean - state.log_wh
  return SizeState(state.log_wh + (ahead - jnp.clip(ahead, -config.play, config.play)), mean)
