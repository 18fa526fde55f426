"""The functional tracker: its forms agree, its geometry is the training's, and it follows a target."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small
from input_pipeline import crops as host_crops
from input_pipeline.errors import UserError
from siamdff_jax.models import devices
from siamdff_jax.models.build import build
from siamdff_jax.tracking import crops, peaks
from siamdff_jax.tracking.belief import _change_penalty
from siamdff_jax.tracking.look import Windows
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker

T, H, W = 9, 96, 128
BOX_WIDTH = 12


def moving_square(seed: int, length: int = T, shape=(H, W)) -> tuple[np.ndarray, np.ndarray]:
  """Frames uint8 [T, H, W] with a bright 12x8 target that moves 2 px per frame, and its boxes."""
  rng = np.random.default_rng(seed)
  frames = rng.normal(90, 6, (length, *shape))
  boxes = np.array([[40 + 2 * t, 30 + t, BOX_WIDTH, 8] for t in range(length)], float)
  for frame, (x, y, w, h) in zip(frames, boxes.astype(int), strict=True):
    frame[y:y + h, x:x + w] += 100
  return frames.clip(0, 255).astype(np.uint8), boxes


@pytest.fixture(scope="module")
def tracker():
  model = build(small.config(**small.PLAIN).model)
  template, wh, search = small.inputs(0, 1)
  variables = {"params": small.random_params(model, template, wh, search, seed=1)}
  return Tracker(model, PLAIN.replace(absent_below=0.0)), variables


def first_look(tracker, variables):
  """(the state after the first frame, the search window in it, what the network sees there)."""
  frames, boxes = moving_square(0)
  state, size = jax.jit(tracker.init)(variables, frames[0], boxes[0]), jnp.array([H, W])
  window = tracker.search_window(state, size)
  return state, window, jax.jit(tracker.see)(variables, state, frames[0], size, window[None])


@pytest.fixture(scope="module")
def looked(tracker):
  return first_look(*tracker)


@pytest.fixture(scope="module")
def single(tracker):
  """Two sequences tracked by plain `init` and `step`, one frame after the other."""
  tracker, variables = tracker
  init, step = jax.jit(tracker.init), jax.jit(tracker.step)
  outputs = []
  for seed in (0, 1):
    frames, boxes = moving_square(seed)
    state, outs = init(variables, frames[0], boxes[0]), []
    for frame in frames[1:]:
      state, out = step(variables, state, frame)
      outs.append(out)
    outputs.append(jax.tree.map(lambda *x: np.stack(x), *outs))
  return outputs


def assert_equal(a, b):
  np.testing.assert_allclose(a.box, b.box, atol=2e-3)
  np.testing.assert_allclose(a.score, b.score, atol=1e-4)
  np.testing.assert_array_equal(a.present, b.present)


def test_scan_equals_single(tracker, single):
  tracker, variables = tracker
  frames, boxes = moving_square(0)
  state = jax.jit(tracker.init)(variables, frames[0], boxes[0])
  _, out = jax.jit(tracker.chunk)(variables, state, frames[1:])
  assert_equal(out, single[0])


def test_vmap_equals_single(tracker, single):
  tracker, variables = tracker
  frames, boxes = (np.stack(x) for x in zip(*[moving_square(seed) for seed in (0, 1)], strict=True))
  state = jax.jit(jax.vmap(tracker.init, (None, 0, 0)))(variables, frames[:, 0], boxes[:, 0])
  _, out = jax.jit(jax.vmap(tracker.chunk, (None, 0, 0)))(variables, state, frames[:, 1:])
  for i in (0, 1):
    assert_equal(jax.tree.map(lambda x, i=i: x[i], out), single[i])


@pytest.mark.parametrize("window", [(60.3, 41.7, 37.2), (2.0, 3.0, 50.0), (64.0, 48.0, 300.0), (-80.0, 10.0, 20.0)])
@pytest.mark.parametrize("side", [63, 127])
@pytest.mark.parametrize("kind", ["cpu", "tpu"])
def test_device_crop_equals_host_crop(window, side, kind):
  frame = np.random.default_rng(3).integers(0, 256, (H, W)).astype(np.uint8)
  with devices.traced_for(kind):
    on_device = np.asarray(crops.crop(frame, jnp.array(window), side))
  np.testing.assert_allclose(on_device, host_crops.crop(frame, np.array(window), side), atol=0.05)


@pytest.mark.parametrize("canvas", [(H, W), (H + 1, W + 5), (320, 704)])
@pytest.mark.parametrize("window", [(60.3, 41.7, 37.2), (126.9, 95.5, 41.3), (64.0, 48.0, 300.0), (-80.0, 10.0, 20.0)])
@pytest.mark.parametrize("kind", ["cpu", "tpu"])
def test_crop_is_equal_to_the_bit_on_any_canvas(window, canvas, kind):
  rng = np.random.default_rng(4)
  frame, larger = rng.integers(0, 256, (H, W), np.uint8), rng.integers(0, 256, canvas, np.uint8)
  larger[:H, :W] = frame

  @functools.partial(jax.jit, static_argnums=2)
  def crop(*arguments):  # A function of its own: a traced one is kept, whatever it is traced for.
    with devices.traced_for(kind):
      return crops.crop(*arguments)

  alone = crop(frame, jnp.array(window), 63)
  np.testing.assert_array_equal(crop(larger, jnp.array(window), 63, jnp.array([H, W])), alone)
  np.testing.assert_allclose(alone, host_crops.crop(frame, np.array(window), 63), atol=0.05)


def test_mean_of_large_frames_is_exact():
  """All white and larger than what a float32 sum holds: whatever lies outside is white too, to the bit."""
  outside = crops.crop(jnp.full((2160, 3840), 255, jnp.uint8), jnp.array([-100.0, -100.0, 20.0]), 7)
  np.testing.assert_array_equal(outside, np.full((7, 7), 255, np.float32))


def test_absent_grows_the_search_window_and_keeps_the_box(tracker):
  """With a presence that comes to nothing every frame is absent and the window ends up over the frame."""
  _, variables = tracker
  blind = Tracker(tracker[0].model, PLAIN.replace(presence_bias=-20.0, lost_after=2, growth=2.0))
  frames, boxes = moving_square(0, length=13)
  state = jax.jit(blind.init)(variables, frames[0], boxes[0])
  first = float(blind.search_window(state, jnp.array([H, W]))[2])
  state, out = jax.jit(blind.chunk)(variables, state, frames[1:])
  assert not out.present.any()
  np.testing.assert_allclose(out.box, np.tile(boxes[0], (12, 1)), atol=1e-3)
  assert int(state.belief.absent_for) == 12
  grown = float(blind.search_window(state, jnp.array([H, W]))[2])
  assert first < W < 2 * W <= grown + 1e-3  # From any centre inside the frame a side of 2 W covers it.


def test_a_size_that_cannot_change_does_not(tracker):
  """With much hold the first box is kept; with none the size follows the (random) predictions."""
  _, variables = tracker
  frames, boxes = moving_square(0, length=4)
  found = {}
  for hold in (50.0, 0.0):
    tied = Tracker(tracker[0].model, PLAIN.replace(absent_below=0.0, size_hold=hold))
    state = jax.jit(tied.init)(variables, frames[0], boxes[0])
    _, out = jax.jit(tied.chunk)(variables, state, frames[1:])
    found[hold] = np.asarray(out.box[:, 2:])
  np.testing.assert_allclose(found[50.0], np.tile(boxes[0, 2:], (3, 1)), atol=1e-3)
  assert np.abs(found[0.0] - boxes[0, 2:]).max() > 0.1


def test_size_penalty_by_hand(tracker):
  size = jnp.array([[20.0, 10.0], [40.0, 20.0], [10.0, 20.0]])
  got = _change_penalty(size, jnp.array([20.0, 10.0]), 0.1)
  # Same box: no penalty. Twice the size: s = 2, r = 1. Turned by 90 degrees: s = 1, r = 4.
  np.testing.assert_allclose(got, [1.0, np.exp(-0.1), np.exp(-0.3)], rtol=1e-5)


def test_privileged_network_cannot_track():
  config = small.config()
  config.model.prior_channel = True
  with pytest.raises(UserError, match="prior_channel"):
    Tracker(build(config.model))


def taken(tracker, looked, step: float, scores: dict[int, float], rest: float):
  """What the tracker takes from a look with boxes of the target's size `step` of its widths apart.

  `scores` are those of cells so many steps to the right of the target; `rest` is that of all others.
  """
  state, window, look = looked
  n = look.cell_score.shape[1]
  grid = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1) - n // 2
  score = np.full((1, n, n), rest, np.float32)
  for right, value in scores.items():
    score[0, n // 2, n // 2 + right] = value
  centre = state.belief.center_wh[:2] + jnp.asarray(grid * BOX_WIDTH * step, jnp.float32)[None]
  look = look._replace(cell_score=jnp.asarray(score), centre=centre, presence_logit=jnp.array([9.0]),
                       wh=jnp.broadcast_to(state.belief.center_wh[2:], look.wh.shape))
  return jax.jit(tracker.decide)(state, look, Windows(window), jnp.array([H, W]))


@pytest.mark.parametrize("factor", [1.0, 0.3, 0.03])
def test_how_high_the_scores_are_does_not_lend_the_expected_place_weight(tracker, looked, factor):
  """A peak a target size from the expected place wins over nothing there, in images that lower all scores too."""
  state = taken(tracker[0], looked, step=0.5, scores={2: 0.8 * factor}, rest=0.02 * factor)[0]
  expected = looked[0].belief.center_wh[:2] + jnp.array([BOX_WIDTH, 0.0])
  np.testing.assert_allclose(state.belief.center_wh[:2], expected, atol=1e-3)


def test_a_larger_search_crop_looks_further_at_the_same_scale(tracker, looked):
  tracker, variables = tracker
  wider = Tracker(tracker.model, PLAIN.replace(absent_below=0.0, search_side=small.SEARCH_SIDE + 16))
  (_, window, look), (_, wide_window, wide_look) = looked, first_look(wider, variables)
  assert wide_window[2] / window[2] == pytest.approx((small.SEARCH_SIDE + 16) / small.SEARCH_SIDE)
  np.testing.assert_allclose(wide_look.images[:, 8:-8, 8:-8], look.images, atol=0.02)
  assert wide_look.cell_score.shape[1] == look.cell_score.shape[1] + 2  # A cell of stride 8 more on every side.
  for side in (small.SEARCH_SIDE + 3, small.SEARCH_SIDE - 8):
    with pytest.raises(UserError, match="search_side"):
      Tracker(tracker.model, PLAIN.replace(search_side=side))


def test_peak_to_sidelobe_ratio_by_hand():
  score, centre = jnp.array([0.5, 0.25, 0.4]), jnp.array([[10.0, 10], [10, 14], [11, 11]])
  # Four pixels away is a place of its own, one pixel is the same peak.
  np.testing.assert_allclose(peaks.ratio(score, centre, 0, 3.0), np.log(2), rtol=1e-5)
  np.testing.assert_allclose(peaks.ratio(score, centre, 1, 3.0), np.log(0.5), rtol=1e-5)
  np.testing.assert_allclose(peaks.ratio(score, centre, 0, 5.0), 5.0, rtol=1e-5)  # No sidelobe: e^5 or more.


def test_log_odds_by_hand():
  settings = PLAIN.replace(presence_scale=0.5, presence_bias=-3.0, presence_ratio=1.5).belief
  np.testing.assert_allclose(peaks.log_odds(jnp.array([2.0, 4.0]), jnp.array([1.0, 0.0]), settings), [-0.5, -1.0])


@pytest.mark.parametrize("other, follows", [(0.05, True), (0.7, False)])
def test_a_doubtful_jump_is_an_absence(tracker, looked, other, follows):
  """The best place is two target sizes from the expected one: followed only where it alone looks like the target."""
  one = Tracker(tracker[0].model, PLAIN.replace(jump_ratio=1.2))
  state, output, _ = taken(one, looked, step=1.0, scores={2: 0.8, -2: other}, rest=0.001)
  assert bool(output.present) == follows
  moved = jnp.array([2.0 * BOX_WIDTH if follows else 0.0, 0.0])
  np.testing.assert_allclose(state.belief.center_wh[:2], looked[0].belief.center_wh[:2] + moved, atol=1e-3)
