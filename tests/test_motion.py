"""Where the target is expected, alone and in the tracker."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spots import SIDE, Spots, scene

from siamdff_jax.tracking import motion
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker

DEVIATION, RATE = 0.5, 0.3


def after(ways, size=16.0):
  """The state after ways [T, 2] from frame to frame."""
  state = motion.init()
  step = jax.jit(lambda s, way: motion.update(s, way, jnp.float32(size), jnp.bool_(True), DEVIATION, RATE))
  for way in np.asarray(ways, np.float32):
    state = step(state, way)
  return state


def test_a_steady_way_is_learned():
  """The error shrinks by the rate in every frame: 3 (1 - 0.7^n)."""
  np.testing.assert_allclose(after([[3, -1]] * 4).velocity, np.array([3, -1]) * (1 - 0.7**4), rtol=1e-5)
  state = after([[3, -1]] * 40)
  np.testing.assert_allclose(state.velocity, [3, -1], atol=1e-4)
  assert float(state.wander) < 1e-4


def test_a_jump_of_the_camera_is_no_velocity():
  """It counts as a surprise of half a target size (8 pixels), of which 0.3 are taken."""
  state = after([[0, 0], [60, 80]])
  np.testing.assert_allclose(state.velocity, 0.3 * 8 * np.array([0.6, 0.8]), rtol=1e-5)
  assert float(state.wander) == pytest.approx(0.3 * 0.5)


def test_nearness_by_hand():
  """Deviation 0.5 sizes of 16 pixels; after much wandering (0.4 sizes) twice that."""
  state, last = motion.MotionState(jnp.array([4.0, 0.0]), jnp.float32(0.1)), jnp.array([50.0, 60.0])
  places = jnp.array([[54.0, 60.0], [54.0, 68.0], [38.0, 60.0]])
  
  def near(state):
    return motion.nearness(state, places, last, jnp.float32(16), DEVIATION)

  np.testing.assert_allclose(near(state), np.exp([0, -0.5, -2]), rtol=1e-5)
  np.testing.assert_allclose(near(state.replace(wander=jnp.float32(0.4))), np.exp(np.array([0, -0.5, -2]) / 1.6**2),
                             rtol=1e-5)


def test_a_target_out_of_sight_has_no_motion():
  state = motion.update(after([[3, 0]] * 9), jnp.array([3.0, 0.0]), jnp.float32(16), jnp.bool_(False), DEVIATION, RATE)
  assert jax.tree.all(jax.tree.map(lambda x: not np.any(x), state))


@pytest.mark.parametrize("way", [4, -4])
def test_of_two_alike_the_one_ahead_is_followed(way):
  """After ten frames of even motion there are two, as far before as behind where the target was."""
  x, tracker = 100, Tracker(Spots(), PLAIN)
  frames = scene([[(x + way * t, 70)] for t in range(-10, 1)] + [[(x - 12, 70), (x + 12, 70)]] * 2)
  state = tracker.init({}, frames[0], jnp.array([x - 10 * way, 70, SIDE, SIDE]))
  _, out = jax.jit(tracker.chunk)({}, state, frames[1:])
  found = np.asarray(out.box[:, 0])
  assert abs(found[-3] - x) < SIDE / 2
  assert abs(found[-1] - (x + 3 * way)) < SIDE / 2
