"""The filter of size and style."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamdff_jax.tracking import sizes

CONFIG = sizes.default_config()
CONFIG.update(drift=0.005, style=0.2, noise=0.3, first=0.15)


def run(first, predicted, scores=None, config=CONFIG):
  """States after each prediction [T, 2]."""
  state, states = sizes.init(jnp.asarray(first, jnp.float32), config), []
  step = jax.jit(lambda s, wh, score: sizes.update(s, wh, score, config))
  for i, wh in enumerate(np.asarray(predicted, np.float32)):
    state = step(state, wh, 1.0 if scores is None else scores[i])
    states.append(state)
  return states


def test_equals_the_posterior_of_all_predictions_together():
  """Conditional Gaussian of (log size, log style) given everything, solved at once instead of frame by frame."""
  rng, frames = np.random.default_rng(0), 12
  scores = rng.uniform(0.2, 1, frames)
  predicted = np.exp(rng.normal(2.5, 0.3, (frames, 2)))
  last = run([10.0, 14.0], predicted, scores)[-1]
  walk = CONFIG.first**2 + CONFIG.drift**2 * (1 + np.minimum.outer(np.arange(frames), np.arange(frames)))
  seen = walk + CONFIG.style**2 + np.diag(CONFIG.noise**2 / scores)  # Covariance of the predictions.
  common = np.stack([walk[-1], np.full(frames, CONFIG.style**2)])  # With the last size and the style.
  difference = np.log(predicted) - np.log([10.0, 14.0])
  mean = common @ np.linalg.solve(seen, difference)  # [2 states, 2 axes]
  np.testing.assert_allclose(last.log_wh - np.log([10.0, 14.0]), mean[0], atol=1e-5)
  np.testing.assert_allclose(last.log_style, mean[1], atol=1e-5)
  prior = np.diag([walk[-1, -1], CONFIG.style**2])
  np.testing.assert_allclose(last.covariance, prior - common @ np.linalg.solve(seen, common.T), atol=1e-6)


def test_a_loose_first_box_stays_loose():
  """A network that always says three quarters of the wanted size: the size keeps most of the first box's."""
  states = run([20.0, 16.0], np.tile([15.0, 12.0], (300, 1)))
  assert np.asarray(states[-1].wh) == pytest.approx([20 * 0.75**0.36, 16 * 0.75**0.36], rel=0.02)  # first^2 : style^2.
  np.testing.assert_allclose(states[-1].wh * np.exp(states[-1].log_style), [15, 12], rtol=0.01)


def test_what_changes_later_is_the_size():
  """After 100 frames of one size predictions double: the size doubles, the style stays."""
  states = run([20.0, 16.0], np.concatenate([np.tile([20.0, 16.0], (100, 1)), np.tile([40.0, 32.0], (1500, 1))]))
  assert np.asarray(states[99].wh) == pytest.approx([20, 16], rel=1e-5)
  ratio = np.array([s.wh[0] / 20 for s in states[100:]])
  assert (np.diff(ratio) > -1e-6).all() and ratio[60] < 1.5 and ratio[-1] == pytest.approx(2, rel=0.15)


def test_a_prediction_without_a_score_changes_nothing():
  state = run([20.0, 16.0], [[90.0, 3.0]], [0.0])[-1]
  np.testing.assert_allclose(state.wh, [20, 16], rtol=0.005)
