"""Which pairs are drawn, and what their windows hold."""

import types

import numpy as np
import pytest

import small
from input_pipeline import geometry
from input_pipeline.errors import UserError
from input_pipeline.sampling import PairSampler, needed_context
from input_pipeline.sequences import from_labels

RATIO = small.SEARCH_SIDE / small.TEMPLATE_SIDE


def sequence(name: str, length: int = 60, seed: int = 0, absent=()):
  """A target of changing size that wanders; no frames."""
  rng = np.random.default_rng([seed, len(name)])
  wh = rng.uniform(6, 40, 2) * np.exp(np.cumsum(rng.normal(0, 0.02, (length, 2)), 0))
  xy = rng.uniform(100, 400, 2) + np.cumsum(rng.normal(0, 2, (length, 2)), 0)
  boxes, visible = np.concatenate([xy, wh], 1), np.ones(length, bool)
  visible[list(absent)] = False
  return from_labels(name, None, boxes, visible, name)


def sampler(**options):
  config = small.config().data.pairs
  config.update(options)
  sources = [[sequence("a"), sequence("bb", absent=range(20, 30))], [sequence("ccc"), sequence("dddd", absent=[0, 59])]]
  return PairSampler(sources, [1.0, 3.0], config, template_side=small.TEMPLATE_SIDE, search_side=small.SEARCH_SIDE)


def pair_of(drawn: PairSampler, seed: int, index: int) -> types.SimpleNamespace:
  """Example `index` of the stream `seed`; `template` and `search` are (sequence index, frame index)."""
  plan = {name: value[0] for name, value in drawn.plan(seed, [index]).items()}
  frames = {name: drawn.locate(plan.pop(f"{name}_frame")) for name in ("template", "search")}
  return types.SimpleNamespace(**frames, **plan)


def as_tuple(pair):
  return tuple(tuple(np.ravel(value).tolist()) for value in vars(pair).values())


def test_a_pair_depends_on_seed_and_index_only():
  """Order, repetition, and what was drawn before do not matter; another sampler of the same data agrees."""
  first, second = sampler(), sampler()
  forward = {i: as_tuple(pair_of(first, 7, i)) for i in range(40)}
  for i in reversed(range(40)):
    assert as_tuple(pair_of(second, 7, i)) == forward[i]
  assert as_tuple(pair_of(first, 7, 3)) == forward[3]
  assert as_tuple(pair_of(first, 8, 3)) != forward[3]
  assert len(set(forward.values())) == 40
  far = as_tuple(pair_of(first, 7, 4 * 10**9))
  assert far == as_tuple(pair_of(second, 7, 4 * 10**9)) != as_tuple(pair_of(first, 2**40 + 7, 4 * 10**9))
  with pytest.raises(ValueError, match=r"expected numbers in \[0, 2\*\*32\)"):
    pair_of(first, 7, 2**32)


def test_weights_and_sequences_are_respected():
  drawn = sampler()
  sources = np.array([pair_of(drawn, 0, i).template[0] for i in range(2000)])
  share = np.bincount(sources, minlength=4) / len(sources)
  np.testing.assert_allclose(share, [0.125, 0.125, 0.375, 0.375], atol=0.04)  # 1 : 3 over two sequences each.


def test_templates_show_the_target_and_the_gap_is_kept():
  drawn = sampler(max_gap=7, negative=0.0)
  for i in range(500):
    pair = pair_of(drawn, 1, i)
    (s, t), (u_sequence, u) = pair.template, pair.search
    sequence = drawn.sequences[s]
    assert sequence.visible[t] and sequence.visible[u] and u_sequence == s and abs(t - u) <= 7
    np.testing.assert_array_equal(pair.template_box, sequence.boxes[t])
    np.testing.assert_array_equal(pair.search_box, sequence.boxes[u])
    window = geometry.template_window(pair.template_box)
    np.testing.assert_allclose(pair.template_window[:2], window[:2])
    assert 1 / 1.05 - 1e-6 <= pair.template_window[2] / window[2] <= 1.05 + 1e-6


@pytest.mark.parametrize("shift", [1.0, 50.0])
def test_positive_windows_hold_the_centre(shift):
  """However large the shift; and the window's size stays within `scale` of the search frame's own."""
  drawn = sampler(negative=0.0, shift=shift, scale=0.35)
  offsets = []
  for i in range(500):
    pair = pair_of(drawn, 2, i)
    assert pair.present
    x, y, side = pair.search_window
    box = pair.search_box
    offset = np.array([box[0] + box[2] / 2 - x, box[1] + box[3] / 2 - y])
    assert np.abs(offset).max() < side / 2
    offsets.append(np.abs(offset).max() / np.sqrt(box[2] * box[3]))
    own = geometry.template_window(box)[2] * RATIO
    assert 1 / 1.35 - 1e-6 <= side / own <= 1.35 + 1e-6
  assert max(offsets) <= shift and max(offsets) > 0.8


def test_style_is_the_same_for_both_boxes_of_a_pair():
  """Both are the labels' boxes about the same centres, times one factor per axis within what is asked for."""
  drawn = sampler(style=0.5, negative=0.0)
  sizes = []
  for i in range(400):
    pair = pair_of(drawn, 5, i)
    factors = []
    for (s, t), box in ((pair.template, pair.template_box), (pair.search, pair.search_box)):
      label = drawn.sequences[s].boxes[t]
      np.testing.assert_allclose(box[:2] + box[2:] / 2, label[:2] + label[2:] / 2, rtol=1e-5)
      factors.append(box[2:] / label[2:])
    np.testing.assert_allclose(*factors, rtol=1e-5)
    np.testing.assert_allclose(pair.template_window[:2], pair.template_box[:2] + pair.template_box[2:] / 2, rtol=1e-5)
    sizes.append(np.sqrt(factors[0].prod()))
    assert 1.5 ** (-1 / 3) - 1e-5 <= np.sqrt(factors[0][0] / factors[0][1]) <= 1.5 ** (1 / 3) + 1e-5
  assert 1 / 1.5 - 1e-5 <= min(sizes) < 0.72 and 1.4 < max(sizes) <= 1.5 + 1e-5


def test_jitter_is_of_the_template_alone():
  exact, jittered = sampler(negative=0.0), sampler(negative=0.0, jitter=0.1)
  changes = []
  for i in range(300):
    a, b = pair_of(exact, 2, i), pair_of(jittered, 2, i)
    assert np.array_equal(a.search_window, b.search_window) and np.array_equal(a.search_box, b.search_box)
    np.testing.assert_allclose(  # The window goes with the box.
        b.template_window[:2], b.template_box[:2] + b.template_box[2:] / 2, rtol=1e-5)
    wh = a.template_box[2:]
    moved = (b.template_box[:2] + b.template_box[2:] / 2 - a.template_box[:2] - wh / 2) / wh
    changes.append([*moved, *np.log(b.template_box[2:] / wh)])
  changes = np.array(changes)
  reach = np.array([0.1, 0.1, np.log(1.1), np.log(1.1)])
  assert (np.abs(changes) <= reach + 1e-3).all()
  np.testing.assert_allclose(changes.std(0), reach / np.sqrt(3), rtol=0.15)  # Uniform.
  assert np.abs(np.corrcoef(changes.T) - np.eye(4)).max() < 0.2  # And independent.


def test_share_of_negatives():
  present = sampler(negative=0.3).plan(0, range(1500))["present"]
  assert np.mean(present) == pytest.approx(0.7, abs=0.04)
  assert not sampler(negative=1.0).plan(0, range(50))["present"].any()


def test_negative_windows_hold_no_part_of_a_target():
  """The search frame either shows no target, or the window does not touch its box."""
  drawn = sampler(negative=1.0)
  absent = other = 0
  for i in range(1500):
    pair = pair_of(drawn, 3, i)
    assert not pair.present and not pair.search_box.any()
    s, u = pair.search
    other += s != pair.template[0]
    sequence = drawn.sequences[s]
    if not sequence.visible[u]:
      absent += 1
      continue
    x, y, side = pair.search_window
    left, top, w, h = sequence.boxes[u]
    common_width = min(x + side / 2, left + w) - max(x - side / 2, left)
    common_height = min(y + side / 2, top + h) - max(y - side / 2, top)
    assert min(common_width, common_height) <= 0
    assert max(abs(left + w / 2 - x), abs(top + h / 2 - y)) < 2.1 * side  # Near it all the same.
  assert absent > 100 and other > 100


def test_impostors_are_other_sequences_targets():
  """Seen as a target is; the rest of the negative pairs stays what it is without impostors."""
  plain, drawn = (sampler(negative=1.0, impostor=share) for share in (0.0, 0.4))
  impostors = 0
  for i in range(1500):
    pair = pair_of(drawn, 3, i)
    assert not pair.present and not pair.search_box.any()
    (s, u), (x, y, side) = pair.search, pair.search_window
    left, top, w, h = drawn.sequences[s].boxes[u]
    if max(abs(left + w / 2 - x), abs(top + h / 2 - y)) > side / 2 or not drawn.sequences[s].visible[u]:
      assert as_tuple(pair) == as_tuple(pair_of(plain, 3, i))
    else:
      impostors += 1
      assert s != pair.template[0]
  np.testing.assert_allclose(impostors / 1500, 0.4 * 3 / 4, atol=0.04)  # One sequence in four is the own one.


def test_look_alikes_are_shown_without_the_target():
  """Of the template's own sequence, wholly inside the window, nothing of the target in it, and all within reach."""
  length, size = 40, 20.0
  boxes = np.tile(np.float32([300, 200, size, size]), (length, 1))
  visible = np.arange(length) != 7
  around = [[t, 310 + 5.0 * t - 8, 210 + 3.0 * t - 8, 16, 16] for t in range(length)]  # From on top of it to far away.
  around += [[7, 303, 202, 16, 16], [11, 250, 900, 16, 16]]  # In front of the absent target; out of reach.
  config = small.config().data.pairs
  config.update(negative=1.0, lookalike=1.0, shift=1.6, scale=0.5)
  sequences = [sequence("a"), from_labels("b", None, boxes, visible, "b", lookalikes=around)]
  drawn = PairSampler([sequences], [1.0], config, template_side=small.TEMPLATE_SIDE, search_side=small.SEARCH_SIDE)
  context = needed_context(config, RATIO) * geometry.template_window(boxes[0])[2]
  shown = set()
  for i in range(1000):
    pair = pair_of(drawn, 5, i)
    if pair.template[0] != 1:
      continue
    (s, t), (x, y, side) = pair.search, pair.search_window
    inside = [row for row in around if row[0] == t and abs(row[1] + 8 - x) <= side / 2 - 8
              and abs(row[2] + 8 - y) <= side / 2 - 8]
    assert s == 1 and not pair.present and len(inside) == 1
    assert t == 7 or max(abs(x - 310), abs(y - 210)) >= (side + size) / 2
    assert max(abs(x - 310), abs(y - 210)) + side / 2 <= context
    shown.add(tuple(inside[0][:2]))
  # Side 4 * 16 at most: free of the target from 32 + 8 + 10 pixels on, and in reach for a while.
  frames = sorted({t for t, _ in shown})
  assert frames[0] == 7 and frames[1] == 11 and frames[-1] < length - 1 and (11, 250) not in shown
  assert len(shown) == len(frames) + 1  # Two of them in frame 7, in which the target is absent.


def test_absent_frames_are_searched_where_the_target_was_last_seen():
  drawn = sampler(negative=1.0)
  found = 0
  for i in range(400):
    pair = pair_of(drawn, 4, i)
    s, u = pair.search
    sequence = drawn.sequences[s]
    if not sequence.visible[u] and u > 0:
      found += 1
      last = max(t for t in range(u) if sequence.visible[t])
      np.testing.assert_allclose(pair.search_window[:2], geometry.template_window(sequence.boxes[last])[:2])
  assert found > 20


def test_sequences_without_a_target_are_left_out_and_sources_without_one_refused():
  empty = sequence("empty", absent=range(60))
  config = small.config().data.pairs
  sides = dict(template_side=63, search_side=127)
  drawn = PairSampler([[empty, sequence("a")]], [1.0], config, **sides)
  assert [s.name for s in drawn.sequences] == ["a"] and pair_of(drawn, 0, 0).template[0] == 0
  with pytest.raises(UserError, match="data source 1 has no sequence with a visible target"):
    PairSampler([[sequence("a")], [empty]], [1.0, 1.0], config, **sides)
  with pytest.raises(UserError, match=r"data.train.clips \(DATA/clips\) has no sequence with a visible target"):
    PairSampler([[empty]], [1.0], config, names=["data.train.clips (DATA/clips)"], **sides)
  for sources, weights in (([], []), ([[empty]], [1.0, 2.0]), ([[sequence("a")]], [0.0]), ([[sequence("a")]], [-1.0])):
    with pytest.raises(UserError, match="expected one weight"):
      PairSampler(sources, weights, config, **sides)
