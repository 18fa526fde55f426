"""Lockstep tracking: equal to tracking one by one, in order, and never further ahead than it should be."""

import functools
import threading

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spots import SIDE, Spots, scene

import small
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import FrameShape
from siamdff_jax.models.build import build
from siamdff_jax.tracking import lockstep as lockstep_module
from siamdff_jax.tracking import reading
from siamdff_jax.tracking.runner import Runner, Stream
from siamdff_jax.tracking.tracker import Tracker

SHAPES = ((96, 128), (70, 150), (130, 64))


@pytest.fixture(scope="module", autouse=True)
def emitters_of_users():
  """Instead of those of conftest.py: that bits do not depend on the lanes is true of XLA's default ones."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax.stages.Lowered, "compile", functools.partialmethod(
        jax.stages.Lowered.compile, compiler_options={"xla_cpu_use_fusion_emitters": True}))
    yield


@pytest.fixture(scope="module")
def tracker():
  model = build(small.config(**small.PLAIN).model)
  return Tracker(model, {"absent_below": 0.3}), {"params": small.random_params(model, *small.inputs(0, 1), seed=1)}


@pytest.fixture(scope="module")
def plain(tracker):
  """(init, step), compiled for frames without a canvas."""
  tracker, variables = tracker
  init, step = jax.jit(tracker.init), jax.jit(tracker.step)
  return lambda *x: init(variables, *x), lambda *x: step(variables, *x)


def moving_square(seed: int, length: int, shape=SHAPES[0]) -> tuple[np.ndarray, np.ndarray]:
  """Frames uint8 [T, H, W] with a bright target of about 12x8 that moves, and its boxes."""
  rng = np.random.default_rng(seed)
  frames = rng.normal(90, 6, (length, *shape))
  boxes = np.array([[20.25 + 2 * t, 30 + t, 12.5, 8.25] for t in range(length)])
  for frame, (x, y, w, h) in zip(frames, boxes.astype(int)):
    frame[y:y + h, x:x + w] += 100
  return frames.clip(0, 255).astype(np.uint8), boxes


def forty() -> list[Stream]:
  """1 to 12 frames of three sizes."""
  made = [moving_square(i, 1 + 7 * i % 12, SHAPES[i % 3]) for i in range(40)]
  return [Stream(f"s{i}", ArrayFrames(frames), boxes[0]) for i, (frames, boxes) in enumerate(made)]


def assert_close(a, b):
  np.testing.assert_array_equal(a.present, b.present)
  np.testing.assert_allclose(a.boxes, b.boxes, atol=2e-3)
  np.testing.assert_allclose(a.score, b.score, atol=1e-4)


def assert_same_bits(a, b):
  for field in ("boxes", "score", "present", "starts"):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.fixture(scope="module")
def lockstep(tracker):
  """All forty, eight at a time on one device."""
  runner = Runner(*tracker, streams=8, chunk=3, devices=jax.devices()[:1])
  streams = forty()
  results = dict(runner.run(streams))
  assert runner.frames_tracked == sum(len(s.frames) for s in streams) and runner.fps > 0
  return results


# --- results


def test_lockstep_equals_init_and_step(lockstep, plain):
  init, step = plain
  streams = forty()
  assert lockstep.keys() == {stream.name for stream in streams}
  for stream in streams:
    result = lockstep[stream.name]
    np.testing.assert_array_equal(result.boxes[0], stream.box)
    assert len(result) == len(stream.frames) and result.score[0] == 1 and result.starts == (0,)
    first, *rest = stream.frames
    state = init(first, stream.box)
    for t, frame in enumerate(rest, 1):
      state, out = step(state, frame)
      assert bool(out.present) == result.present[t]
      np.testing.assert_allclose(result.boxes[t], out.box if out.present else [np.nan] * 4, atol=2e-3)
      np.testing.assert_allclose(result.score[t], out.score, atol=1e-4)


def test_one_stream_at_a_time_gives_the_same_bits(tracker, lockstep):
  """Other lanes, chunks and canvas: only sequences of one frame size, one after the other."""
  runner = Runner(*tracker, streams=1, chunk=4, devices=jax.devices()[:1])
  for name, result in runner.run([s for i, s in enumerate(forty()) if i % 3 == 0]):
    assert_same_bits(result, lockstep[name])


def test_devices_share_the_lanes(tracker, lockstep):
  """Close to one device; the same bits on any number of several, for one stream at a time too."""
  assert len(jax.local_devices()) == 8
  results = dict(Runner(*tracker, streams=9, chunk=3).run(forty()))
  assert results.keys() == lockstep.keys()
  for name, result in results.items():
    assert_close(result, lockstep[name])
  for name, result in Runner(*tracker, streams=1, chunk=2).run(forty()[:9]):
    assert_same_bits(result, results[name])


def test_lanes_as_a_batch(tracker, lockstep):
  """What accelerators run."""
  results = dict(Runner(*tracker, streams=8, chunk=3, form="batch", devices=jax.devices()[:1]).run(forty()))
  for name, result in lockstep.items():
    assert_close(results[name], result)


def reset_by_hand(plain, frames, truth):
  """The rule of VOT in a loop over frames: (boxes, starts)."""
  init, step = plain
  boxes, starts, state, due = [], [], None, 0
  for t, (frame, box) in enumerate(zip(frames, truth)):
    answer = [np.nan] * 4
    if state is not None:
      state, out = step(state, frame)
      answer = np.asarray(out.box) if out.present else answer
      (x, y, w, h), (tx, ty, tw, th) = answer, box
      overlaps = x < tx + tw and tx < x + w and y < ty + th and ty < y + h  # False for NaN.
      if tw > 0 and not overlaps:
        state, due = None, t + 5
    elif t >= due and box[2] > 0:
      state, answer = init(frame, box), box
      starts.append(t)
    boxes.append(answer)
  return np.array(boxes), tuple(starts)


@pytest.mark.parametrize("form", ["loop", "batch"])
def test_resets(tracker, plain, form):
  """The truth jumps away now and then, and is absent for a while, also where a restart is due."""
  made, streams = {}, []
  for i in range(5):
    frames, truth = moving_square(i, 26)
    truth[4 + i] += (40, -25, 0, 0)
    truth[8 + i:12 + i] = 0
    truth[19] += (-15, 40, 0, 0)
    made[f"s{i}"] = reset_by_hand(plain, frames, truth)
    streams.append(Stream(f"s{i}", ArrayFrames(frames), truth[0], truth))
  runner = Runner(*tracker, streams=2, chunk=4, reset=True, form=form, devices=jax.devices()[:1])
  for name, result in runner.run(streams):
    boxes, starts = made.pop(name)
    assert result.starts == starts and len(starts) >= 3
    np.testing.assert_allclose(result.boxes, boxes, atol=2e-3)
    np.testing.assert_array_equal(result.boxes[list(starts)], boxes[list(starts)])
  assert not made


def test_checkpoints_of_one_network_share_the_program(monkeypatch):
  """Traced once for equal trackers, whatever the weights."""
  traced, advance = [], lockstep_module.advance

  def counted(tracker, *arguments, **options):
    traced.append(tracker)
    return advance(tracker, *arguments, **options)

  monkeypatch.setattr(lockstep_module, "advance", counted)
  network, stream = Spots(), Stream("s", ArrayFrames(scene([[(60, 60)]] * 3)), np.array([60.0, 60, SIDE, SIDE]))
  for weight in (1.0, 2.0):
    runner = Runner(Tracker(network, {"lost_after": 7}), {"weight": np.full(3, weight)}, streams=1, chunk=2,
                    devices=jax.devices()[:1])
    ((_, result),) = runner.run([stream])
    assert result.present.all()
  assert traced == [Tracker(network, {"lost_after": 7})]
  assert Tracker(network) != Tracker(network, {"lost_after": 7}) != Tracker(Spots(), {"lost_after": 7})


# --- order and memory


@pytest.fixture(scope="module")
def two_by_two(tracker):
  """Two lanes, two frames a chunk."""
  return Runner(*tracker, streams=2, chunk=2, devices=jax.devices()[:1])


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 4), st.integers(1, 5))
def test_plan(lengths, lanes, chunk):
  """Every stream in one lane, whole and in order; a lane has nothing to do only when no stream waits."""
  frames, taken = [[] for _ in lengths], 0
  for segments in reading.plan(lengths, lanes, chunk):
    slots = [[] for _ in range(lanes)]
    for stream, start, count, lane, slot in segments:
      frames[stream] += [(lane, t) for t in range(start, start + count)]
      slots[lane] += range(slot, slot + count)
      taken = max(taken, stream + 1)
    for used in slots:
      assert used == list(range(len(used))) and (len(used) == chunk or taken == len(lengths))
  for found, length in zip(frames, lengths):
    assert [t for _, t in found] == list(range(length)) and len({lane for lane, _ in found}) == 1


class Watched:
  """Frames that can only be read in order; counts how many are read, and how many such sources are open."""

  open, most_open, lock = 0, 0, threading.Lock()

  def __init__(self, frames):
    self._frames, self.read = frames, 0

  def __len__(self):
    return len(self._frames)

  def __iter__(self):
    with self.lock:
      Watched.open += 1
      Watched.most_open = max(Watched.most_open, Watched.open)
    try:
      for frame in self._frames:
        self.read += 1
        yield frame
    finally:
      with self.lock:
        Watched.open -= 1


def test_reading_keeps_few_files_open_and_little_in_memory(two_by_two):
  """One chunk in work, one waited for, and two that are decoded ahead."""
  frames, boxes = moving_square(0, 40)
  sources = {name: Watched(frames[:count]) for name, count in {"long": 40, "b": 5, "c": 5, "d": 4}.items()}
  shape = FrameShape(96, 128)
  results = two_by_two.run([Stream(name, source, boxes[0], shape=shape) for name, source in sources.items()])
  assert not any(source.read for source in sources.values())
  name, _ = next(results)
  # 3 chunks are done when "b" ends, so that 7 may be read.
  assert name == "b" and sources["b"].read == 5 and 6 <= sources["long"].read <= 14
  results.close()  # An interrupted run lets go of everything.
  assert Watched.open == 0 and Watched.most_open == 2


def test_buffers_are_not_overwritten_while_in_use():
  """Any chunk is untouched until the second after it is asked for."""
  streams = [Stream(f"s{i}", ArrayFrames(np.full((23, 4, 4), i + 1, np.uint8) + np.arange(23, dtype=np.uint8)
                                         [:, None, None] * 10), np.array([0, 0, 2, 2.0])) for i in range(3)]
  chunks, held = reading.read_chunks(streams, [(4, 4)] * 3, lanes=2, chunk=3, canvas=(64, 64)), []
  for inputs, segments in chunks:
    held = [*held, (inputs, segments)][-2:]
    for arrays, found in held:
      for stream, start, count, lane, slot in found:
        values = arrays.frame[slot:slot + count, lane, :4, :4]
        expected = np.uint8(stream + 1) + np.arange(start, start + count, dtype=np.uint8) * 10
        np.testing.assert_array_equal(values, np.broadcast_to(expected[:, None, None], values.shape))


# --- what is wrong with the input


def test_refuses_a_box_outside(tracker):
  frames, _ = moving_square(0, 2)
  for box in ([-30, 5, 12, 8], [10, 200, 12, 8], [10, 10, 0, 8], [np.nan, 1, 2, 3]):
    with pytest.raises(UserError, match="s: the box"):
      list(Runner(*tracker).run([Stream("s", ArrayFrames(frames), np.array(box, float))]))


def test_resets_need_the_truth(tracker):
  frames, boxes = moving_square(0, 3)
  for truth in (None, boxes[:2]):
    with pytest.raises(ValueError, match="s: a reset-based run needs the truth of each of the 3 frames"):
      list(Runner(*tracker, reset=True).run([Stream("s", ArrayFrames(frames), boxes[0], truth)]))


class Broken(Watched):
  """Frame 5 cannot be read."""

  def __iter__(self):
    yield from self._frames[:5]
    raise UserError("bad/000005.jpg: not a readable image")


class Short(Watched):
  """Announces two frames more than there are."""

  def __len__(self):
    return len(self._frames) + 2


@pytest.mark.parametrize("source, message", [
    (Broken, "bad/000005.jpg: not a readable image"), (Short, "bad: the frames end after 9, 11 were expected"),
    (lambda frames: [*frames[:4], frames[4][:50]], "bad: frame 4 is 128x50 pixels, expected 128x96")])
def test_unreadable_frames(two_by_two, source, message):
  """Sequences that ended before are there."""
  frames, boxes = moving_square(0, 9)
  streams = [Stream("bad", source(frames), boxes[0]), Stream("good", ArrayFrames(frames[:2]), boxes[0])]
  results = two_by_two.run(streams)
  assert next(results)[0] == "good"
  with pytest.raises(UserError, match=message):
    next(results)


def test_nothing_to_track(tracker):
  assert list(Runner(*tracker).run([])) == []
