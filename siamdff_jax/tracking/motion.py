"""Where the target is expected: a look-alike that crosses its way is told from it by motion alone.

The place expected is the last one, moved on by a velocity that follows slowly. How near a prediction is to it counts by
a Gaussian, in target sizes (our choice): the Siamese family's cosine window spans the whole search window, about four
target sizes, and hardly tells the target from a neighbour.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np


class MotionState(flax.struct.PyTreeNode):
  """How the target moves.

  Attributes:
    velocity: [2] of the centre, frame pixels per frame.
    wander: [] how far from the expected place the target has been lately, in target sizes.
  """

  velocity: jax.Array
  wander: jax.Array


def init() -> MotionState:
  """Of a target that has not moved yet."""
  return MotionState(jnp.zeros(2), jnp.zeros(()))


def nearness(state: MotionState, centre: jax.Array, last: jax.Array, extent: jax.Array, deviation: float) -> jax.Array:
  """How near places are to the expected one, 0..1: an unsteady target is given more room.

  Args:
    state: of the frame before.
    centre: [..., 2] places, frame pixels.
    last: [..., 2] the target's last place, frame pixels.
    extent: [] of the target (`geometry.extent`), frame pixels.
    deviation: of the Gaussian, in target sizes, at least.
  """
  apart = jnp.linalg.norm(centre - last - state.velocity, axis=-1)
  return jnp.exp(-0.5 * (apart / (jnp.maximum(deviation, 2 * state.wander) * extent)) ** 2)


def cosine_window(side: int) -> np.ndarray:
  """The Siamese family's window over a response map, float32 [side, side], without its zero rim."""
  axis = np.hanning(side + 2)[1:-1]
  return np.outer(axis, axis).astype(np.float32)


def update(state: MotionState, moved: jax.Array, extent: jax.Array, seen: jax.Array, deviation: float,
           rate: float) -> MotionState:
  """One frame further; starts anew where the target is not `seen` (bool []).

  Args:
    state: of the frame before.
    moved: [2] the target's way since then, frame pixels. It counts as at most `deviation` target sizes off the expected
      one: a jump of the camera is no velocity.
    extent: [] of the target (`geometry.extent`), frame pixels.
    seen: whether it was followed in both frames.
    deviation: of `nearness`.
    rate: how fast the velocity follows, per frame.
  """
  surprise = (moved - state.velocity) / extent
  off = jnp.linalg.norm(surprise)
  counted = jnp.minimum(off, deviation)
  velocity = state.velocity + rate * counted / jnp.maximum(off, 1e-6) * surprise * extent
  wander = state.wander + rate * (counted - state.wander)
  return jax.tree.map(lambda new, start: jnp.where(seen, new, start), MotionState(velocity, wander), init())
