"""The size of the target over time: that of the first box, until the predictions leave no doubt that it changed.

What a box includes differs between annotators (and users), and the first one shows what is wanted here. A network has a
style of its own, and its predictions of a tiny target scatter by a tenth. So a change of size is believed the more, the
larger it is (our choice; what else was tried: docs/experiments.md): with d the change of a logarithm since the first
box, as the predictions' running mean has it, d^5 / (d^4 + hold^4) of it is. Small ones come to nothing, half of `hold`
is believed at `hold`, and large ones wholly.

A predicted size also leans towards the search window's, which shows a target of the size found last. That share of
the window in it is taken out first; with it a size that is wrong would confirm itself.
"""

import flax
import jax
import jax.numpy as jnp

from siamdff_jax.tracking.settings import MemorySettings


class SizeState(flax.struct.PyTreeNode):
  """How large the target is.

  Attributes:
    first: [2] logarithms of the first box's width and height in frame pixels.
    log_wh: [2] the same of the size now.
    predicted: [2] the running mean of what the network says they are.
  """

  first: jax.Array
  log_wh: jax.Array
  predicted: jax.Array

  @property
  def wh(self) -> jax.Array:
    """[2] width and height in frame pixels."""
    return jnp.exp(self.log_wh)

  @property
  def predicted_wh(self) -> jax.Array:
    """[2] width and height as the network sees them."""
    return jnp.exp(self.predicted)


def init(wh: jax.Array) -> SizeState:
  """From the first box's width and height [2], frame pixels."""
  return SizeState(jnp.log(wh), jnp.log(wh), jnp.log(wh))


def update(state: SizeState, predicted_wh: jax.Array, score: jax.Array, window_scale: jax.Array,
           settings: MemorySettings) -> SizeState:
  """One frame further.

  Args:
    state: of the frame before.
    predicted_wh: [2] the network's size of the target, frame pixels.
    score: [] 0..1, how much the prediction counts.
    window_scale: [] how many times larger the search window was than that of a target of the size of `state`.
    settings: of the memory.
  """
  predicted = jnp.log(predicted_wh)
  off_the_window = (predicted - state.log_wh).mean() - jnp.log(window_scale)
  predicted += off_the_window * settings.size_window_share / (1 - settings.size_window_share)
  mean = state.predicted + jnp.minimum(settings.size_rate * score, 1) * (predicted - state.predicted)
  change = mean - state.first
  believed = change**4 / (change**4 + settings.size_hold**4) if settings.size_hold else 1.0
  return state.replace(log_wh=state.first + believed * change, predicted=mean)
