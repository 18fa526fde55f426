"""A lost target: proposals over the whole frame, camera motion, and what is taken for the target again."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spots import SIDE, H, Spots, W, scene

from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from siamdff_jax.tracking import belief, egomotion, proposals
from siamdff_jax.tracking.look import Jump
from siamdff_jax.tracking.runner import Runner, Stream
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker


@functools.cache
def compiled(settings):
  """(init, step) for settings ((name, value), ...)."""
  tracker = Tracker(Spots(), PLAIN.replace(**dict(settings)))
  return jax.jit(tracker.init), jax.jit(tracker.step)


def follow(config, frames, box):
  """(boxes [T - 1, 4], present [T - 1], the last state)."""
  init, step = compiled(tuple(config.items()))
  state, outputs = init({}, frames[0], jnp.array(box)), []
  for frame in frames[1:]:
    state, output = step({}, state, frame)
    outputs.append(output)
  return np.stack([out.box for out in outputs]), np.stack([out.present for out in outputs]), state


def off(box, place):
  """Distance of a box's centre from the middle of the square at a place."""
  return np.hypot(*(box[:2] + box[2:] / 2 - np.array(place[:2]) - SIDE / 2))


# --- proposals


def test_integral_image():
  frame = np.random.default_rng(0).integers(0, 256, (37, 50), np.uint8)
  sums = np.asarray(proposals.integral_image(frame))
  assert sums.shape == (38, 51) and not sums[0].any() and not sums[:, 0].any()
  np.testing.assert_array_equal(sums[1:, 1:], frame.astype(np.int64).cumsum(0).cumsum(1))


def test_pattern_is_the_mean_of_each_part():
  """A box of 9x6 pixels has parts of 3x2 pixels, one more on every side."""
  image = np.random.default_rng(1).uniform(0, 255, (63, 63)).astype(np.float32)
  part = image[20:30, 30:45].reshape(5, 2, 5, 3).mean((1, 3))
  np.testing.assert_allclose(proposals.pattern(image, jnp.array([37.5, 25.0, 9.0, 6.0])), part, rtol=1e-4)


@pytest.mark.parametrize("scale, offset, expected", [(1.0, 0.0, 1.0), (3.0, -50.0, 1.0), (-1.0, 200.0, -1.0),
                                                     (0.25, 80.0, 0.5)])
def test_likeness(scale, offset, expected):
  """Brighter or of more contrast is alike, the negative is the opposite, a quarter of the contrast half as alike."""
  wanted = np.random.default_rng(2).uniform(0, 255, (5, 5)).astype(np.float32)
  patterns = (offset + scale * wanted)[:, :, None, None]
  np.testing.assert_allclose(proposals._likeness(patterns, wanted), [[expected]], atol=1e-5)


propose = jax.jit(proposals.propose, static_argnums=7)


def looked_for(frames, wh):
  """What `scene` shows, as the tracker has it: a square of 255 in 90."""
  pattern = np.full((5, 5), 90, np.float32)
  pattern[1:4, 1:4] = 255
  return proposals.Appearance(pattern, pattern)


@pytest.mark.parametrize("place", [(0, 0), (208, 144), (101, 77), (3, 130)])
def test_the_best_place_is_the_target(place):
  frames = scene([[place, (60, 20, 0)]])  # And a dark one that is none.
  places = propose(frames[0], jnp.array([H, W]), looked_for(frames, 16), jnp.array([112.0, 80.0, 16.0, 16.0]),
                   jnp.float32(1000), jnp.float32(16), jnp.int32(0), 4)
  assert np.abs(np.asarray(places[0]) - np.array(place) - 8).max() < 3
  gaps = np.abs(places[:, None] - places[None]).max(-1)
  assert gaps[~np.eye(4, dtype=bool)].min() >= 16


def test_proposals_stay_within_reach():
  frames = scene([[(180, 100)]])

  def near(reach, turn=0):
    return propose(frames[0], jnp.array([H, W]), looked_for(frames, 16), jnp.array([50.0, 50.0, 16.0, 16.0]),
                   jnp.float32(reach), jnp.float32(16), jnp.int32(turn), 3)

  assert np.abs(np.asarray(near(40)) - 50).max() <= 40 and np.abs(np.asarray(near(40, turn=1)) - 50).max() <= 40
  assert np.abs(np.asarray(near(150)[0]) - [188, 108]).max() < 3
  np.testing.assert_array_equal(near(0.1), np.full((3, 2), 50))  # No point of the grid: the last place.


def test_the_first_and_the_last_look_get_their_turn():
  """Bright at first, dark at last: neither hides the other."""
  bright, dark = (20, 20), (190, 130, 20)
  frames = scene([[bright, dark]])
  first = looked_for(frames, 16).first
  wanted = proposals.Appearance(first, 255 - first)
  for turn, place in ((0, bright), (2, dark), (4, bright)):
    best = propose(frames[0], jnp.array([H, W]), wanted, jnp.array([112.0, 80.0, 16.0, 16.0]), jnp.float32(1000),
                   jnp.float32(30), jnp.int32(turn), 1)[0]
    assert np.abs(np.asarray(best) - np.array(place[:2]) - 8).max() < 4


@pytest.mark.parametrize("since", [0, 10**8])
def test_no_part_of_the_frame_is_left_out(since):
  """Whatever the frame shows, 48 places come within 32 pixels, each way, of every point of it."""
  frames = scene([[(20, 20)]])
  places = np.concatenate([
      propose(frames[0], jnp.array([H, W]), looked_for(frames, 16), jnp.array([112.0, 80.0, 16.0, 16.0]),
              jnp.float32(1000), jnp.float32(16), jnp.int32(2 * turn + 1 + since), 8) for turn in range(6)])
  grid = np.stack(np.meshgrid(np.arange(W), np.arange(H)), -1).reshape(-1, 1, 2)
  assert np.abs(grid - places).max(-1).min(1).max() < 32
  assert len(np.unique(places, axis=0)) == 48


def test_proposals_are_equal_to_the_bit_on_any_canvas():
  frames = scene([[(100, 60)]])
  canvas = np.random.default_rng(3).integers(0, 256, (192, 256), np.uint8)
  canvas[:H, :W] = frames[0]
  arguments = (jnp.array([H, W]), looked_for(frames, 16), jnp.array([50.0, 50.0, 16.0, 16.0]), jnp.float32(90),
               jnp.float32(16), jnp.int32(3), 6)
  np.testing.assert_array_equal(propose(frames[0], *arguments), propose(canvas, *arguments))


# --- camera motion


thumbnail, shift = jax.jit(egomotion.thumbnail), jax.jit(egomotion.shift)


def ground(seed=0, side=700):
  """float [side, side], textured at many scales."""
  rng = np.random.default_rng(seed)
  return 110 + sum(9 * cv2.GaussianBlur(rng.normal(size=(side, side)), None, s) * s for s in (1.0, 3.0, 9.0, 25.0))


def view(world, x, y, shape=(256, 320), seed=0):
  noise = np.random.default_rng((seed, x, y)).normal(0, 2, shape)
  return (world[y:y + shape[0], x:x + shape[1]] + noise).clip(0, 255).astype(np.uint8)


def moved(before, after):
  size = jnp.array(before.shape)
  cells, _ = shift(thumbnail(before, size), thumbnail(after, size))
  return np.asarray(cells) * before.shape[::-1] / egomotion.SIDE


def test_thumbnail_is_the_area_mean():
  frame = view(ground(), 0, 0)
  expected = cv2.resize(frame.astype(np.float32), (egomotion.SIDE,) * 2, interpolation=cv2.INTER_AREA)
  np.testing.assert_allclose(thumbnail(frame, jnp.array(frame.shape)), expected, atol=0.01)


def test_thumbnail_is_equal_to_the_bit_on_any_canvas():
  frame = view(ground(), 0, 0, (200, 313))
  canvas = np.random.default_rng(0).integers(0, 256, (256, 384), np.uint8)
  canvas[:200, :313] = frame
  np.testing.assert_array_equal(thumbnail(canvas, jnp.array([200, 313])), thumbnail(frame, jnp.array([200, 313])))


@pytest.mark.parametrize("jump", [(0, 0), (5, -3), (-40, 25), (120, 10), (-155, 60), (-100, -120)])
def test_camera_jumps_are_found(jump):
  """What is seen moves against the camera; up to half of the frame, to a fraction of a cell of 5 by 4 pixels."""
  world = ground()
  before, after = view(world, 200, 200), view(world, 200 - jump[0], 200 - jump[1])
  np.testing.assert_allclose(moved(before, after), jump, atol=1.2)
  thumbnails = [thumbnail(x, jnp.array(x.shape)) for x in (before, after)]
  noise = np.random.default_rng(1).normal(size=(egomotion.SIDE,) * 2)
  assert shift(*thumbnails)[1] and not shift(thumbnails[0], thumbnails[1] + 30 * noise)[1]


def test_correlations_are_those_of_what_both_show():
  """Against numpy's, cell by cell, at some shifts; structure is what lies between two of OpenCV's Gaussians."""
  world = ground(3)
  images = [np.array(thumbnail(x, jnp.array(x.shape))) for x in (view(world, 200, 200), view(world, 280, 170))]
  found, share = jax.jit(egomotion.correlations)(*images)

  def zeros_around(x, deviation):
    return cv2.GaussianBlur(x, (31, 31), deviation, borderType=cv2.BORDER_CONSTANT)

  def blurred(x, deviation):
    return zeros_around(x, deviation) / zeros_around(np.ones_like(x), deviation)

  one, two = (blurred(x, 0.6) - blurred(x, 2.0) for x in images)
  side = egomotion.SIDE
  for row, column in ((0, 0), (7, -16), (8, -16), (-20, 3), (30, 25)):
    rows, columns = slice(max(row, 0), side + min(row, 0)), slice(max(column, 0), side + min(column, 0))
    moved_back = slice(max(-row, 0), side - max(row, 0)), slice(max(-column, 0), side - max(column, 0))
    expected = np.corrcoef(one[moved_back].ravel(), two[rows, columns].ravel())[0, 1]
    assert found[row, column] == pytest.approx(expected, abs=2e-3), (row, column)
    assert share[row, column] == pytest.approx((side - abs(row)) * (side - abs(column)) / side**2)
  assert np.asarray(found).max() < 1.001


def test_a_sensors_own_pattern_does_not_stand_for_the_view():
  """Pixels of their own offset stay where they are while a view of little contrast jumps; phase correlation takes them
  for the view.
  """
  pattern = np.random.default_rng(5).normal(0, 4, (256, 320))
  world = 110 + 0.4 * (ground(2) - 110)
  before, after = (np.clip(view(world, x, 200) + pattern, 0, 255).astype(np.uint8) for x in (200, 330))
  np.testing.assert_allclose(moved(before, after), [-130, 0], atol=1.2)


def test_a_clear_sky_does_not_move():
  """Noise, with a slope of brightness."""
  sky = np.tile(np.linspace(60, 90, 700)[:, None], (1, 700))
  for x in range(11, 17):
    np.testing.assert_array_equal(moved(view(sky, 10, 10), view(sky, x, 10)), [0, 0])


def test_frames_without_contrast():
  flat = np.full((64, 80), 17, np.uint8)
  np.testing.assert_array_equal(moved(flat, flat), [0, 0])


# --- the tracker


LOST = {"lost_after": 1, "growth": 3.0, "tiles": 4}


def test_a_target_far_away_is_found_again():
  """Two frames without it, then at the other end of the frame; a window at the old place never sees it."""
  home, far = (20, 20), (190, 130)
  frames = scene([[home]] * 3 + [[]] * 3 + [[far]] * 5)
  boxes, present, state = follow(LOST, frames, [*home, SIDE, SIDE])
  assert present[:2].all() and not present[2:5].any() and present[-3:].all()
  assert max(off(box, far) for box in boxes[-3:]) < SIDE / 2
  np.testing.assert_allclose(boxes[-1, 2:], SIDE, rtol=0.05)
  assert int(state.belief.absent_for) == 0
  assert not follow(LOST | {"tiles": 0, "growth": 1.0}, frames, [*home, SIDE, SIDE])[1][2:].any()


@pytest.mark.parametrize("frames_there, found", [(1, False), (4, True)])
def test_what_is_far_away_must_be_seen_again(frames_there, found):
  """A flash is not taken for the target."""
  home, far = (20, 20), (190, 130)
  frames = scene([[home]] * 2 + [[]] * 2 + [[far]] * frames_there + [[]])
  boxes, present, _ = follow(LOST | {"found_above": 10.0}, frames, [*home, SIDE, SIDE])
  assert not present[1:4].any()  # Without confirmation it would be reported in the first of these frames.
  assert present[4:-1].any() == found
  np.testing.assert_allclose(boxes[3], [*home, SIDE, SIDE], atol=2)  # Where it was seen last, until it is confirmed.


@pytest.mark.parametrize("levels, found", [([170, 150, 170, 150, 170], True), ([156] * 8, False),
                                           ([170, 150, 150, 170], False)])
def test_evidence_adds_up(levels, found):
  """Log odds are 20 (level / 255 - 0.6), once 8 before: 0.8 in the running mean. Less half of it 0.93 at 170,
  -0.64 at 150 and -0.17 at 156, which is never enough, however long it is there.
  """
  home, far = (20, 20), (190, 130)
  frames = scene([[home]] * 2 + [[]] * 2 + [[(*far, level)] for level in levels])
  _, present, _ = follow(LOST | {"found_above": 1.1, "found_share": 0.5}, frames, [*home, SIDE, SIDE])
  assert not present[3:-1].any() and present[-1] == found
  assert follow(LOST | {"found_above": 0.5}, frames, [*home, SIDE, SIDE])[1][3:].any()  # Or without that share.


def over_ground(*shown):
  """Frames [T, H, W] of (the view's place in a world, the places of bright squares)."""
  world, frames = 50 + 5 * (ground(1) - 110), []  # Of so much contrast that the squares do not count.
  for (x, y), squares in shown:
    frames.append(view(world, x, y, (H, W)))
    for left, top in squares:
      frames[-1][top:top + SIDE, left:left + SIDE] = 190
  return np.stack(frames)


BEFORE, AFTER = (100, 200), (200, 140)  # Of the view: all that stands in the world moves by (-100, 60) in it.
HERE, THERE = (150, 40), (50, 100)  # The same place in the world.


@pytest.mark.parametrize("tiles", [0, 4])
def test_the_window_jumps_with_the_camera(tiles):
  """The whole view moves between two frames; the target is followed without a frame lost."""
  frames = over_ground(*[(BEFORE, [HERE])] * 3, *[(AFTER, [THERE])] * 2)
  boxes, present, _ = follow({"camera_compensation": True, "tiles": tiles}, frames, [*HERE, SIDE, SIDE])
  assert present.all()
  assert max(off(box, place) for box, place in zip(boxes, [HERE] * 2 + [THERE] * 2, strict=True)) < SIDE / 2
  assert not follow({"tiles": tiles}, frames, [*HERE, SIDE, SIDE])[1][2:].any()


def test_a_target_that_stays_where_the_background_jumps_is_not_left():
  """As where the estimate is wrong, or the camera follows the target. No velocity comes of it, either."""
  frames = over_ground(*[(BEFORE, [HERE])] * 3, *[(AFTER, [HERE])] * 2)
  np.testing.assert_allclose(moved(frames[2], frames[3]), np.subtract(BEFORE, AFTER), atol=2)
  boxes, present, state = follow({"camera_compensation": True, "tiles": 4}, frames, [*HERE, SIDE, SIDE])
  assert present.all() and max(off(box, HERE) for box in boxes) < SIDE / 2
  np.testing.assert_allclose(state.memory.motion.velocity, 0, atol=1)


@pytest.mark.parametrize("sure, place", [(True, THERE), (False, HERE)])
def test_a_look_alike_in_the_old_place(sure, place):
  """Brighter than the target, which has moved with the background: it counts where the jump is not sure."""
  frame = over_ground((BEFORE, [HERE]))[0]
  tracker, shape = Tracker(Spots(), PLAIN.replace(camera_compensation=True, tiles=4)), jnp.array(frame.shape)
  state = jax.jit(tracker.init)({}, frame, jnp.array([*HERE, SIDE, SIDE], jnp.float32))
  frame = over_ground((AFTER, []))[0]
  for (x, y), level in ((HERE, 200), (THERE, 175)):
    frame[y:y + SIDE, x:x + SIDE] = level
  by = jnp.array(np.subtract(THERE, HERE), jnp.float32)
  state = state.replace(belief=belief.moved(state.belief, by))
  _, out = jax.jit(tracker.search)({}, state, frame, shape, Jump(by, jnp.array(sure)))
  assert out.present and off(out.box, place) < SIDE / 2


def test_a_target_in_none_of_both_places_may_be_anywhere():
  """What the tiles show does not count in the frame of the jump, but in the next ones, long before the target would be
  lost otherwise, and over the whole frame.
  """
  far = (200, 130)
  frames = over_ground(*[(BEFORE, [HERE])] * 3, *[(AFTER, [far])] * 6)
  np.testing.assert_allclose(moved(frames[2], frames[3]), np.subtract(BEFORE, AFTER), atol=2)
  config = {"camera_compensation": True, "tiles": 4, "lost_after": 50, "growth": 1.01}
  boxes, present, _ = follow(config, frames, [*HERE, SIDE, SIDE])
  assert not present[2] and present[-1]
  assert off(boxes[-1], far) < SIDE / 2
  still = over_ground(*[(BEFORE, [HERE])] * 3, *[(BEFORE, [far])] * 6)  # As a jump of the target itself: no search.
  assert not follow(config, still, [*HERE, SIDE, SIDE])[1][2:].any()


def test_a_hidden_target_moves_with_jumps_only():
  """A slow motion of the view may be the camera following it: 8 pixels are less than a quarter of the window."""
  frames = over_ground((BEFORE, [HERE]), (BEFORE, []), ((108, 200), []), ((208, 140), []))
  states = [follow({"camera_compensation": True, "tiles": 4}, frames[:count], [*HERE, SIDE, SIDE])[2]
            for count in (2, 3, 4)]
  places = [state.belief.center_wh[:2] for state in states]
  np.testing.assert_allclose(places[1], places[0])
  np.testing.assert_allclose(places[2] - places[0], [-100, 60], atol=2)


def test_recent_looks():
  """Taken of what is surely seen only, beside the first one."""
  levels = [255, 240, 225, 225]
  frames = scene([[(60, 60, level)] for level in levels] + [[]] * 3)
  config = {"template_update": 0.25, "template_every": 1}
  init, step = compiled(tuple(config.items()))
  start = state = init({}, frames[0], jnp.array([60.0, 60, SIDE, SIDE]))
  seen = []
  for frame in frames[1:]:
    state, out = step({}, state, frame)
    fresh = float(init({}, frame, out.box).memory.template["level"][0])
    seen.append(float(state.memory.recent_template["level"][0]))
    if out.present:
      np.testing.assert_allclose(seen[-1], fresh, rtol=1e-5)
  assert seen[0] < start.memory.template["level"][0] and seen[2:] == [seen[2]] * 4  # Absent frames change nothing.
  np.testing.assert_array_equal(state.memory.template["level"], start.memory.template["level"])


def test_a_recent_look_helps_a_doubtful_target():
  """It takes its share of the template where presence was low, and none where it was high."""
  frame = scene([[(60, 60)]])[0]
  tracker = Tracker(Spots(), PLAIN.replace(template_update=0.25, template_below=0.9))
  state = jax.jit(tracker.init)({}, frame, jnp.array([60.0, 60, SIDE, SIDE]))
  first = state.memory.template
  state = state.replace(memory=state.memory.replace(recent_template=first | {"wh": 3 * first["wh"]}))
  size = jnp.array(frame.shape)
  windows, see = tracker.search_window(state, size)[None], jax.jit(tracker.see)

  def width(presence):  # The stand-in's boxes are as large as its template's.
    doubtful = state.replace(belief=state.belief.replace(presence=jnp.array(presence)))
    return float(see({}, doubtful, frame, size, windows).wh[0, 0, 0, 0])

  np.testing.assert_allclose([width(0.95), width(0.85)], [SIDE, 1.5 * SIDE], rtol=1e-4)


def test_the_first_template_must_stay_the_larger_part():
  with pytest.raises(UserError, match="template_update=0.6: expected a finite number from 0 to 0.5"):
    PLAIN.replace(template_update=0.6)


def test_calibration_of_presence():
  """Of the logit, before anything is decided by it."""
  frames = scene([[(60, 60, 170)]] * 2)  # A logit of 20 (170 / 255 - 0.6) = 1.33.

  def score(config):
    init, step = compiled(tuple(config.items()))
    return step({}, init({}, frames[0], jnp.array([60.0, 60, SIDE, SIDE])), frames[1])[1].score

  expected = 1 / (1 + np.exp(-(0.5 * 4 / 3 - 2))) / (1 / (1 + np.exp(-4 / 3)))
  np.testing.assert_allclose(score({"presence_scale": 0.5, "presence_bias": -2.0}) / score({}), expected, rtol=0.02)


# --- many lanes


def test_loop_and_batch_agree():
  """Sequences of several sizes that lose the target at different times; every switch is on."""
  streams = []
  for i in range(3):
    places = [[(20, 20)]] * (3 + i) + [[]] * 3 + [[(150 - 20 * i, 100)]] * 6 + [[]] * 2 + [[(30, 90)]] * 4
    frames = scene(places, seed=i)[:, :H - 16 * (i % 2), :W - 16 * (i % 3)]
    streams.append(Stream(f"s{i}", ArrayFrames(np.ascontiguousarray(frames)), np.array([20.0, 20, SIDE, SIDE])))
  config = LOST | {"camera_compensation": True, "template_update": 0.5, "template_below": 0.9,
                   "found_above": 10.0}
  tracker, found = Tracker(Spots(), PLAIN.replace(**config)), {}
  for form in ("loop", "batch"):
    runner = Runner(tracker, {}, streams=2, chunk=4, form=form, devices=jax.devices()[:1])
    found[form] = dict(runner.run(streams))
  for name, loop in found["loop"].items():
    batch = found["batch"][name]
    np.testing.assert_array_equal(loop.present, batch.present)
    np.testing.assert_allclose(loop.boxes, batch.boxes, atol=2e-3)
    np.testing.assert_allclose(loop.score, batch.score, atol=1e-4)
    assert loop.present[1] and not loop.present.all() and loop.present[-1]
