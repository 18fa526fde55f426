"""Where the target is expected: a look-alike that crosses its way is told from it by motion alone.

The place expected is the last one, moved on by a velocity that follows slowly. How near a prediction is to it counts by
a Gaussian, in target sizes (our choice): the Siamese family's cosine window spans the whole search window, about four
target sizes, and hardly tells the target from a neighbour.
"""

import flax
import jax
import jax.numpy as jnp
import ml_collections


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker.motion` may set (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      deviation=0.5,  # Of the Gaussian, in target sizes, at least; 0: the family's cosine window.
      rate=0.3,  # How fast the velocity follows, per frame.
  ))


@flax.struct.dataclass
class MotionState:
  """Attributes:

    velocity: [2] of the centre, frame pixels per frame.
    wander: [] how far from the expected place the target has been lately, in target sizes.
  """

  velocity: jax.Array
  wander: jax.Array


def init() -> MotionState:
  return MotionState(jnp.zeros(2), jnp.zeros(()))


def nearness(state: MotionState, centre: jax.Array, last: jax.Array, size: jax.Array,
             config: ml_collections.ConfigDict) -> jax.Array:
  """How near places are to the expected one, 0..1: an unsteady target is given more room.

  Args:
    state: of the frame before.
    centre: [..., 2] places, frame pixels.
    last: [..., 2] the target's last place, frame pixels.
    size: [] of the target, frame pixels.
    config: as `default_config`.
  """
  apart = jnp.linalg.norm(centre - last - state.velocity, axis=-1)
  return jnp.exp(-0.5 * (apart / (jnp.maximum(config.deviation, 2 * state.wander) * size)) ** 2)


def update(state: MotionState, moved: jax.Array, size: jax.Array, seen: jax.Array,
           config: ml_collections.ConfigDict) -> MotionState:
  """One frame further; starts anew where the target is not `seen` (bool []).

  Args:
    state: of the frame before.
    moved: [2] the target's way since then, frame pixels. It counts as at most `deviation` target sizes off the expected
      one: a jump of the camera is no velocity.
    size: [] of the target, frame pixels.
    seen: whether it was followed in both frames.
    config: as `default_config`.
  """
  surprise = (moved - state.velocity) / size
  off = jnp.linalg.norm(surprise)
  counted = jnp.minimum(off, config.deviation)
  velocity = state.velocity + config.rate * counted / jnp.maximum(off, 1e-6) * surprise * size
  wander = state.wander + config.rate * (counted - state.wander)
  return jax.tree.map(lambda new, start: jnp.where(seen, new, start), MotionState(velocity, wander), init())
