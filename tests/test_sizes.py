"""The size that believes large changes and not small ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamdff_jax.tracking import sizes
from siamdff_jax.tracking.settings import MemorySettings

SETTINGS = MemorySettings(size_hold=0.3, size_rate=0.5, size_window_share=0.0)


def run(first, predicted, scores=None, window_scale=1.0):
  """States after each prediction [T, 2]."""
  state, states = sizes.init(jnp.asarray(first, jnp.float32)), []
  step = jax.jit(lambda s, wh, score: sizes.update(s, wh, score, window_scale, SETTINGS))
  for i, wh in enumerate(np.asarray(predicted, np.float32)):
    state = step(state, wh, 1.0 if scores is None else scores[i])
    states.append(state)
  return states


def test_a_loose_first_box_stays_nearly_as_loose():
  """A network that always says nine tenths of the wanted size, and scatters."""
  scatter = np.random.default_rng(0).normal(0, 0.02, (300, 2))
  states = run([20.0, 16.0], np.array([18.0, 14.4]) * np.exp(scatter))  # log(0.9) is a third of the hold.
  np.testing.assert_allclose([s.wh for s in states], np.tile([20, 16], (300, 1)), rtol=0.01)


@pytest.mark.parametrize("truth", [[40.0, 32.0], [10.0, 8.0], [80.0, 4.0]])
def test_a_large_change_is_followed_wholly(truth):
  """To within the 3 % that are left of a change by log(2); width and height each on its own."""
  wh = run([20.0, 16.0], np.tile(truth, (40, 1)))[-1].wh
  np.testing.assert_allclose(wh, truth, rtol=0.03)


def test_how_much_of_a_change_is_believed():
  """By hand; the mean is at log(2) (1 - 2^-t)."""
  states = run([20.0, 20.0], np.tile([40.0, 40.0], (3, 1)))
  change = np.log(2) * (1 - 0.5 ** np.arange(1, 4))
  believed = change**5 / (change**4 + 0.3**4)
  np.testing.assert_allclose([s.wh[0] for s in states], 20 * np.exp(believed), rtol=1e-5)
  at_hold = run([20.0, 20.0], np.tile(20 * np.exp([0.3, 0.3]), (60, 1)))[-1].wh
  np.testing.assert_allclose(at_hold, 20 * np.exp(0.15), rtol=1e-4)


def test_a_target_that_comes_back_to_its_size_has_the_first_box_again():
  there_and_back = np.concatenate([np.tile([40.0, 40.0], (60, 1)), np.tile([20.0, 20.0], (60, 1))])
  np.testing.assert_allclose(run([20.0, 20.0], there_and_back)[-1].wh, [20, 20], rtol=1e-5)


@pytest.mark.parametrize("window_scale", [0.7, 1.0, 1.5])
def test_the_share_of_the_window_is_taken_out(window_scale):
  """A network whose log size is 0.3 of the window's and 0.7 of the truth's: the truth is found from any window."""
  first, truth = 20.0, 50.0
  settings = MemorySettings(size_window_share=0.3, size_hold=0.0, size_rate=1.0)
  state = sizes.init(jnp.array([first, first]))
  for _ in range(5):
    window = np.log(float(state.wh[0]) * window_scale)
    said = np.exp(0.3 * window + 0.7 * np.log(truth))
    state = sizes.update(state, jnp.array([said, said]), 1.0, window_scale, settings)
    np.testing.assert_allclose(state.wh, [truth, truth], rtol=1e-4)


def test_a_prediction_without_a_score_changes_nothing():
  state = run([20.0, 16.0], [[90.0, 3.0]], [0.0])[-1]
  np.testing.assert_allclose(state.wh, [20, 16], rtol=1e-6)
