"""The size that follows predictions with play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamdff_jax.tracking import sizes

CONFIG = sizes.default_config()
CONFIG.update(play=0.3, rate=0.5, window_share=0.0)


def run(first, predicted, scores=None, config=CONFIG, window_scale=1.0):
  """States after each prediction [T, 2]."""
  state, states = sizes.init(jnp.asarray(first, jnp.float32)), []
  step = jax.jit(lambda s, wh, score: sizes.update(s, wh, score, window_scale, config))
  for i, wh in enumerate(np.asarray(predicted, np.float32)):
    state = step(state, wh, 1.0 if scores is None else scores[i])
    states.append(state)
  return states


def test_a_loose_first_box_stays_loose():
  """A network that always says four fifths of the wanted size, and scatters: the first box is kept to the bit."""
  scatter = np.random.default_rng(0).normal(0, 0.02, (300, 2))
  states = run([20.0, 16.0], np.array([16.0, 12.8]) * np.exp(scatter))  # log(4/5) is -0.22.
  assert all(np.array_equal(s.wh, states[0].wh) for s in states)
  np.testing.assert_allclose(states[-1].wh, [20, 16], rtol=1e-6)


def test_a_target_that_doubles_is_followed_at_the_distance_of_the_play():
  states = run([20.0, 16.0], np.tile([40.0, 32.0], (40, 1)))
  sizes_ = np.array([s.wh for s in states])
  assert (np.diff(sizes_, axis=0) >= -1e-4).all()
  np.testing.assert_allclose(sizes_[-1], np.array([40, 32]) * np.exp(-0.3), rtol=1e-3)
  # The mean is at log(2) (1 - 2^-t): beyond the play from the first frame on.
  np.testing.assert_allclose(sizes_[:3, 0], 20 * np.exp(np.log(2) * (1 - 0.5 ** np.arange(1, 4)) - 0.3), rtol=1e-4)


def test_turning_back_takes_up_the_play_first():
  grown = run([20.0, 20.0], np.tile([40.0, 40.0], (60, 1)))[-1].wh
  both = run([20.0, 20.0], np.concatenate([np.tile([40.0, 40.0], (60, 1)), np.tile([25.0, 25.0], (60, 1))]))
  np.testing.assert_allclose(both[-1].wh, grown, rtol=1e-3)  # log(25) is within 0.3 of log(29.6).
  shrunk = run([20.0, 20.0], np.concatenate([np.tile([40.0, 40.0], (60, 1)), np.tile([10.0, 10.0], (60, 1))]))
  np.testing.assert_allclose(shrunk[-1].wh, [10 * np.exp(0.3)] * 2, rtol=1e-3)


def test_width_and_height_have_play_of_their_own():
  wh = run([20.0, 20.0], np.tile([60.0, 20.0], (60, 1)))[-1].wh
  np.testing.assert_allclose(wh, [60 * np.exp(-0.3), 20], rtol=1e-3)


@pytest.mark.parametrize("window_scale", [0.7, 1.0, 1.5])
def test_the_share_of_the_window_is_taken_out(window_scale):
  """A network whose log size is 0.3 of the window's and 0.7 of the truth's: the truth is found from any window."""
  first, truth, config = 20.0, 50.0, CONFIG.copy_and_resolve_references()
  config.update(window_share=0.3, play=0.0, rate=1.0)
  state = sizes.init(jnp.array([first, first]))
  for _ in range(5):
    window = np.log(float(state.wh[0]) * window_scale)
    said = np.exp(0.3 * window + 0.7 * np.log(truth))
    state = sizes.update(state, jnp.array([said, said]), 1.0, window_scale, config)
    np.testing.assert_allclose(state.wh, [truth, truth], rtol=1e-4)


def test_a_prediction_without_a_score_changes_nothing():
  state = run([20.0, 16.0], [[90.0, 3.0]], [0.0])[-1]
  np.testing.assert_allclose(state.wh, [20, 16], rtol=1e-6)
