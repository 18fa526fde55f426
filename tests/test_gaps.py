"""Frames that cannot be read or show nothing, streams that break, targets that stick out of the frame."""

import functools

import jax
import numpy as np
import pytest
from spots import SIDE, Spots, scene

from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import FrameShape
from siamdff_jax.tracking import reading
from siamdff_jax.tracking.baselines import BASELINES, BaselineRunner
from siamdff_jax.tracking.reading import BrokenStreams, Stream
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.tracking.tracker import Tracker

CONFIG = {"lost_after": 4, "camera_compensation": True, "template_update": 0.5, "template_every": 3, "tiles": 2}
KINDS = ("loop", "batch", *BASELINES)
GAP = (5, 6, 7, 12)  # Frames; more in a row than make a target "lost" in the network's tracker, were they looked at.


@functools.cache  # Compiled once.
def runner(kind: str, reset: bool = False):
  if kind in BASELINES:
    return BaselineRunner(kind, reset=reset)
  return Runner(Tracker(Spots(), CONFIG), {}, streams=2, chunk=3, form=kind, reset=reset, devices=jax.devices()[:1])


def walk(count: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Frames with a bright square that moves by 2 px a frame, and its boxes."""
  places = [(40 + 2 * t, 60 + t) for t in range(count)]
  return scene([[place] for place in places], seed=seed), np.array([[x, y, SIDE, SIDE] for x, y in places], float)


class Gappy(ArrayFrames):
  """Some frames give an error."""

  def __init__(self, frames, gaps):
    super().__init__(frames)
    self._gaps = gaps

  def __getitem__(self, t):
    if t in self._gaps:
      raise UserError(f"clip/{t:03d}.png: not a readable image")
    return super().__getitem__(t)

  def __iter__(self):
    return (self[t] for t in range(len(self)))


def run_broken(kind, streams, **options):
  """(results of the whole streams, what is raised at the end)."""
  found = {}
  with pytest.raises(BrokenStreams) as raised:
    for name, result in runner(kind, **options).run(streams):
      found[name] = result
  return found, raised.value


def with_uniform(frames, gaps=GAP):
  frames = frames.copy()
  for t in gaps:
    frames[t] = 31 * (t % 8)  # A shutter, black, and levels in between.
  return frames


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_is_absent_and_changes_nothing_else(kind, caplog):
  """The same bits as if those frames had never been taken: the state is not touched, nor are other streams."""
  frames, boxes = walk()
  other, other_boxes = walk(10, seed=1)
  rest = [t for t in range(len(frames)) if t not in GAP]
  streams = [Stream("other", ArrayFrames(other), other_boxes[0])]
  expected = dict(runner(kind).run([Stream("a", ArrayFrames(frames[rest]), boxes[0]), *streams]))
  caplog.clear()
  uniform = dict(runner(kind).run([Stream("a", ArrayFrames(with_uniform(frames)), boxes[0]), *streams]))
  assert [r.getMessage() for r in caplog.records] == [
      "a: 4 of 16 frames have one grey level only, the target counts as absent in them"]
  whole, error = run_broken(kind, [Stream("a", Gappy(frames, GAP), boxes[0]), *streams])
  assert whole.keys() == {"other"} and error.errors.keys() == error.partial.keys() == {"a"}
  for found, others in ((uniform["a"], uniform["other"]), (error.partial["a"], whole["other"])):
    np.testing.assert_array_equal(found.boxes[rest], expected["a"].boxes)
    np.testing.assert_array_equal(others.boxes, expected["other"].boxes)
    assert len(found) == 16 and not found.present[list(GAP)].any()
    if kind not in BASELINES:
      np.testing.assert_array_equal(found.score[rest], expected["a"].score)
      assert not found.score[list(GAP)].any() and found.present[rest].all()
  assert uniform["a"].incomplete is None
  assert error.partial["a"].incomplete == {
      "tracked": 12, "announced": 16, "why": "clip/005.png: not a readable image"}
  assert str(error) == "clip/005.png: not a readable image; of 16 announced frames 12 could be read"


@pytest.mark.parametrize("kind", KINDS)
def test_streams_that_cannot_start_leave_the_others_alone(kind):
  """An unreadable first frame with the size known and not known, a box outside; the error names the first by name."""
  frames, boxes = walk(4)
  first = Gappy(frames, (0,))
  streams = [Stream("whole", ArrayFrames(frames), boxes[0]), Stream("b", first, boxes[0]),
             Stream("c", first, boxes[0], shape=FrameShape(*frames.shape[1:])),
             Stream("a", ArrayFrames(frames), np.array([-20.0, 5, 20, 9]))]
  found, error = run_broken(kind, streams)
  assert found.keys() == {"whole"} and list(error.errors) == ["a", "b", "c"] and not error.partial
  assert str(error).startswith("a: the box [-20.0, 5.0, 20.0, 9.0] lies outside") and "2 more" in str(error)
  assert str(error.errors["b"]) == str(error.errors["c"]) == "clip/000.png: not a readable image"


@pytest.mark.parametrize("kind", ["loop", "KCF"])
def test_frames_that_are_announced_only_or_of_another_size(kind):
  frames, boxes = walk(8)
  small = [*frames[:6], frames[6][:50], frames[7]]

  class Short(ArrayFrames):
    def __len__(self):
      return 10

    def readable(self):
      return iter(frames)

  _, error = run_broken(kind, [Stream("short", Short(frames), boxes[0]), Stream("small", small, boxes[0])])
  assert str(error.errors["short"]) == (
      "short: the frames end after 8, 10 were expected; of 10 announced frames 8 could be read")
  assert "small: frame 6 is 224x50 pixels, expected 224x160" in str(error.errors["small"])
  assert error.partial["short"].present.tolist() == [True] * 8 + [False] * 2
  assert error.partial["small"].present.tolist() == [True] * 6 + [False, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("around", ["all", "target"])
def test_nothing_around_the_first_box_is_nothing_to_follow(kind, around, caplog):
  frames, boxes = walk(8)
  frames[0, :, :120 if around == "target" else None] = 90
  (_, found), = runner(kind).run([Stream("s", ArrayFrames(frames), boxes[0])])
  assert found.present.tolist() == [True] + [False] * 7
  said = [r.getMessage() for r in caplog.records]
  assert len(said) == (2 if around == "all" else 1) and "one grey level only around the target" in said[0]


def test_constant_frames_are_absent_everywhere():
  """The case of a file whose pixels were lost."""
  frames = np.full((12, 160, 224), 29, np.uint8)
  for kind in KINDS:
    (_, found), = runner(kind).run([Stream("s", ArrayFrames(frames), np.array([50.0, 50, 10, 7]))])
    assert found.present.sum() == 1, kind


def test_one_pixel_of_difference_is_not_uniform():
  for place in ((0, 0), (3, 4), (6, 8), (0, 8)):
    frame = np.full((7, 9), 200, np.uint8)
    assert reading.is_uniform(frame)
    frame[place] -= 1
    assert not reading.is_uniform(frame)


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_in_reset_based_runs_are_failures_where_the_target_is_visible(kind):
  """By hand: absent in a visible frame, started anew from the truth five frames later, or in the next frame that shows
  something and the target."""
  frames, truth = walk(30)
  truth[12:14] = 0
  gaps = (6, 11, 13, 18)  # Frame 11: a start is due there. 13: the target is absent. 18: a failure; 23 is due.
  frames = with_uniform(frames, gaps)
  frames[23] = 0
  (_, found), = runner(kind, reset=True).run([Stream("s", ArrayFrames(frames), truth[0], truth)])
  assert found.starts == (0, 14, 24)
  assert np.flatnonzero(~found.present).tolist() == [*range(6, 14), *range(18, 24)]
  blind = frames.copy()
  blind[0] = 7
  truth[1:3] = 0
  (_, found), = runner(kind, reset=True).run([Stream("s", ArrayFrames(blind), truth[0], truth)])
  assert found.starts == (0, 8, 16, 24)  # Frame 3 is the first in which the target is visible, and lost.


# --- the border


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("box", [(-15.2, 40, SIDE, SIDE), (223.5, 60, SIDE, SIDE), (100, -15.9, SIDE, SIDE),
                                 (100, 159.9, SIDE, SIDE), (-15.5, -15.5, SIDE, SIDE), (-40, 60, 50, 2)])
def test_a_target_whose_centre_lies_outside(kind, box):
  """Any overlap is inside, as `check_data` has it; the answers are numbers or "absent"."""
  frames, _ = walk(6)
  (_, found), = runner(kind).run([Stream("s", ArrayFrames(frames), np.array(box, float))])
  assert len(found) == 6 and np.isfinite(found.boxes[found.present]).all()
  np.testing.assert_array_equal(found.boxes[0], box)


def test_one_rule_for_outside():
  """A box that ends where the frame begins shares no pixel with it."""
  for box in ([-16, 10, 16, 9], [224, 10, 5, 5], [10, -9, 5, 9], [10, 160, 5, 5]):
    with pytest.raises(UserError, match="s: the box .* lies outside the frame of 224x160 pixels"):
      reading.check_box(np.array(box, float), FrameShape(160, 224), "s")
  for box in ([-15.9, 10, 16, 9], [223.9, 10, 5, 5], [10, -8.9, 5, 9], [10, 159.9, 5, 5]):
    reading.check_box(np.array(box, float), FrameShape(160, 224), "s")
