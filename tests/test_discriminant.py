"""What tells the target from the rest: the discriminant itself, and what a tracker learns and does with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spots import SIDE, Spots, scene

from siamdff_jax.tracking import discriminant
from siamdff_jax.tracking.tracker import Tracker

D = 48


def lessons(count, seed=0):
  """(looks [count, D], others [count, N, D], weights [count, N])."""
  rng = np.random.default_rng(seed)
  mix = rng.normal(size=(D, D))
  return (rng.normal(1.0, 0.5, (count, D)) @ mix, rng.normal(0.0, 1.0, (count, 40, D)) @ mix,
          rng.uniform(0, 1, (count, 40)))


def learned(looks, others, weights):
  """One lesson after the other; looks [count, D], or [count, M, D] with several each."""
  looks = looks.reshape(len(looks), -1, D)
  state = discriminant.init(*(jnp.asarray(x[0], jnp.float32) for x in (looks, others, weights)))
  for lesson in zip(looks[1:], others[1:], weights[1:]):
    state = discriminant.learn(state, *(jnp.asarray(x, jnp.float32) for x in lesson))
  return state


@pytest.mark.parametrize("count, views", [(1, 1), (5, 1), (4, 3)])
def test_fishers_discriminant_by_hand(count, views):
  """Against NumPy's mean and covariance of all samples at once, in float64."""
  _, others, weights = lessons(count)
  looks = lessons(count * views, seed=1)[0].reshape(count, views, D)
  centre = (looks[0].mean(0) + looks.mean((0, 1))) / 2
  flat, share = others.reshape(-1, D), weights.ravel()
  elsewhere = np.average(flat, axis=0, weights=share)
  spread = (np.cov(looks.reshape(-1, D).T, bias=True) + np.cov(flat.T, bias=True, aweights=share)) / 2
  spread += 0.1 * np.trace(spread) / D * np.eye(D)
  direction = np.linalg.inv(spread) @ (centre - elsewhere)
  direction /= (centre - elsewhere) @ direction
  samples = np.random.default_rng(1).normal(0, 20, (40, D))
  expected = np.clip((samples - elsewhere) @ direction, -1, 2)
  assert expected.std() > 0.1
  np.testing.assert_allclose(discriminant.score(learned(looks, others, weights), samples), expected, atol=2e-4)


def test_the_score_is_zero_elsewhere_and_one_at_the_target():
  looks, others, weights = lessons(4)
  state = learned(looks, others, weights)
  np.testing.assert_allclose(discriminant.score(state, state.others.mean), 0, atol=1e-4)
  np.testing.assert_allclose(discriminant.score(state, (state.first_look + state.target.mean) / 2), 1, atol=1e-4)
  assert discriminant.score(state, 100 * (state.first_look - state.others.mean)) == 2.0


def test_the_first_look_cannot_be_forgotten():
  """However many wrong looks follow, it scores as high as they do."""
  looks, others, weights = lessons(300)
  looks[1:] = looks[1]
  state = learned(looks, others, weights)
  first, wrong = discriminant.score(state, jnp.asarray(looks[:2], jnp.float32))
  assert first > 0.5 and abs(first + wrong - 2) < 0.05  # Their middle is the target.


def test_nothing_elsewhere_is_no_error():
  """A target that fills its window, or a frame without anything alike."""
  looks, others, weights = lessons(2)
  assert np.isfinite(discriminant.score(learned(looks, others, 0 * weights), jnp.asarray(looks))).all()


# --- the tracker

PLAIN, STRIPED = 205, (255, 155)  # Of the same mean level: alike for the stand-in's scores, not for its features.
OPTIONS = {"tiles": 4, "lost_after": 1, "growth": 3.0, "found_above": 6.0}
LEARNS = OPTIONS | {"discriminant_every": 4, "presence_discriminant": 20.0, "presence_bias": -10.0}


@functools.cache
def compiled(settings):
  tracker = Tracker(Spots(), dict(settings))
  return jax.jit(tracker.init), jax.jit(tracker.step)


def frames_of(*shown):
  """Each frame's [(x, y, levels of odd and even rows)]."""
  frames = scene([[] for _ in shown])
  for frame, squares in zip(frames, shown):
    for x, y, levels in squares:
      frame[y:y + SIDE, x:x + SIDE] = np.resize(levels, SIDE)[:, None]
  return frames


def follow(config, frames):
  """(boxes, present, states), one per frame after the first, whose target is the square at HOME."""
  init, step = compiled(tuple(config.items()))
  state, found = init({}, frames[0], jnp.array([*HOME, SIDE, SIDE])), []
  for frame in frames[1:]:
    state, output = step({}, state, frame)
    found.append((np.asarray(output.box), bool(output.present), state))
  return tuple(zip(*found))


HOME = (40, 40)
TARGET, LOOK_ALIKE = (*HOME, PLAIN), (150, 110, STRIPED)


def test_a_look_alike_that_was_there_all_the_time_is_not_the_target():
  """When the target is hidden it is all that is left; a target that comes back elsewhere is taken up again."""
  back = (100, 30, PLAIN)
  frames = frames_of(*[[TARGET, LOOK_ALIKE]] * 8, *[[LOOK_ALIKE]] * 8, *[[LOOK_ALIKE, back]] * 8)
  at = lambda box, place: np.abs(box[:2] - place[:2]).max() < SIDE / 2
  boxes, present, _ = follow(OPTIONS, frames)
  assert any(here and at(box, LOOK_ALIKE) for box, here in zip(boxes[8:15], present[8:15]))
  boxes, present, _ = follow(LEARNS, frames)
  assert all(present[:7]) and not any(present[7:15]) and present[-1] and at(boxes[-1], back)


def test_lessons_are_given_now_and_then_while_the_target_is_seen():
  """In frames 0, 1, 2 and in every fourth that surely shows the target."""
  frames = frames_of(*[[TARGET, LOOK_ALIKE]] * 10, *[[LOOK_ALIKE]] * 8, *[[TARGET, LOOK_ALIKE]] * 8)
  _, present, states = follow(LEARNS, frames)
  looks = [float(state.discriminant.target.weight) for state in states]
  np.testing.assert_allclose(looks[:9], [2, 3, 3, 4, 4, 4, 4, 5, 5], rtol=1e-5)
  assert looks[9:17] == [looks[8]] * 8
  assert not any(present[9:17]) and present[-1] and looks[-1] > 5.5
  np.testing.assert_array_equal(states[-1].discriminant.first_look, states[0].discriminant.first_look)


@pytest.mark.parametrize("weight, stays", [(0.0, False), (2.0, True)])
def test_a_look_alike_beside_a_target_that_fades(weight, stays):
  """By its scores it wins over a target that gets dark; by what was learned of it before it came near it does not."""
  beside = (HOME[0] + 2 * SIDE, HOME[1], STRIPED)
  frames = frames_of(*[[TARGET, LOOK_ALIKE]] * 8, *[[(*HOME, 205 - 16 * i), beside] for i in range(6)])
  boxes = follow(LEARNS | {"score_discriminant": weight, "absent_below": 0.0}, frames)[0]
  assert (np.abs(boxes[-1][:2] - HOME).max() < SIDE / 2) == stays
  assert stays or np.abs(boxes[-1][:2] - beside[:2]).max() < SIDE / 2


def test_a_lesson_and_a_recent_look_in_the_same_frame():
  """Looking around does not cost the recent look."""
  frames = frames_of(*[[(*HOME, level), LOOK_ALIKE] for level in (205, 205, 205, 205, 225)])
  states = follow(LEARNS | {"template_update": 0.5, "template_every": 4}, frames)[2]
  levels = [float(state.recent_template["level"][0]) for state in states]
  assert levels[:3] == [levels[0]] * 3 and levels[3] > levels[0]


def test_lessons_need_tiles():
  with pytest.raises(ValueError, match="discriminant_every needs tracker.tiles"):
    Tracker(Spots(), {"discriminant_every": 10})
