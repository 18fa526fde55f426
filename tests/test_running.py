"""Running a tracker into a folder of results: what is done is not done again, and results are never mixed up."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline import geometry
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames, ImageFiles
from input_pipeline.sequences import from_labels
from siamdff_jax import results
from siamdff_jax.evaluation import running, starts
from siamdff_jax.results import Result
from siamdff_jax.tracking.streams import BrokenStreams


def sequence(name, length=4, first=(10.0, 8.0, 6.0, 4.0)):
  frames = ArrayFrames(np.zeros((length, 32, 48), np.uint8))
  return from_labels(name, frames, [first] * length, None, "test")


class StandsStill:
  """A tracker that keeps its first box, a frame a second; `dies_after` streams it is interrupted."""

  def __init__(self, dies_after=None):
    self.frames_tracked, self.seconds, self.tracked, self._dies_after = 0, 0.0, [], dies_after

  def run(self, streams):
    for stream in streams:
      if len(self.tracked) == self._dies_after:
        raise KeyboardInterrupt
      count = len(stream.frames)
      self.tracked.append(stream.name)
      self.frames_tracked, self.seconds = self.frames_tracked + count, self.seconds + count
      yield stream.name, Result([stream.box] * count)


def track(tracker, sequences, out, *, run="ope", name="still", **options):
  running.prepare(str(out), tracker=name, run=run, redo=options.get("redo", False))
  running.track(tracker, sequences, str(out), run=run, **options)


def names(folder):
  return sorted(os.path.relpath(os.path.join(at, file), folder) for at, _, files in os.walk(folder) for file in files)


def test_an_interrupted_run_goes_on(tmp_path):
  sequences = [sequence("short", 2), sequence("long", 9), sequence("middle", 5)]
  first = StandsStill(dies_after=2)
  with pytest.raises(KeyboardInterrupt):
    track(first, sequences, tmp_path)
  assert first.tracked == ["long", "middle"]
  assert names(tmp_path / "results") == ["long.json", "middle.json"]
  second = StandsStill()
  track(second, sequences, tmp_path)
  assert second.tracked == ["short"]
  (found,) = results.read_folder(tmp_path, sequences)
  assert {name: len(result) for name, result in found.items()} == {"short": 2, "long": 9, "middle": 5}
  about = json.loads((tmp_path / "run.json").read_text())
  assert (about["frames"], about["seconds"]) == (16, 16.0)
  assert running.frames_per_second(str(tmp_path)) == 1.0
  third = StandsStill()
  track(third, sequences, tmp_path)
  assert third.tracked == []


def test_another_tracker_run_or_data_is_refused(tmp_path):
  track(StandsStill(), [sequence("a")], tmp_path)
  with pytest.raises(UserError, match=r"run.json: the results there are of another tracker \(still, here moving\)"):
    running.prepare(str(tmp_path), tracker="moving", run="ope")
  with pytest.raises(UserError, match="of another run"):
    running.prepare(str(tmp_path), tracker="still", run="sre")
  for other in (sequence("a", 5), sequence("a", first=(11.0, 8.0, 6.0, 4.0))):
    with pytest.raises(UserError, match="a.json: is of other data"):
      track(StandsStill(), [other], tmp_path)
  assert names(tmp_path) == ["results/a.json", "run.json"]
  (tmp_path / "run.json").write_text("{")
  with pytest.raises(UserError, match="run.json: cannot be read"):
    running.prepare(str(tmp_path), tracker="still", run="ope")


def test_redo_replaces_all_of_another_tracker_and_nothing_of_the_same(tmp_path):
  track(StandsStill(), [sequence("a"), sequence("b")], tmp_path)
  running.prepare(str(tmp_path), tracker="still", run="ope", redo=True)
  assert names(tmp_path) == ["results/a.json", "results/b.json", "run.json"]
  running.prepare(str(tmp_path), tracker="moving", run="ope", redo=True)
  assert names(tmp_path) == ["run.json"] and running.frames_per_second(str(tmp_path)) is None


def test_an_absent_first_frame_is_refused(tmp_path):
  absent = from_labels("a", ArrayFrames(np.zeros((2, 8, 8), np.uint8)), [[0] * 4, [1, 1, 3, 3]], None, "test")
  with pytest.raises(UserError, match="a: the target is absent in the first frame"):
    track(StandsStill(), [absent], tmp_path)


def test_processes_share_the_sequences(tmp_path):
  sequences = [sequence(f"s{i}", 2 + i) for i in range(7)]
  trackers = [StandsStill() for _ in range(3)]
  for i, tracker in enumerate(trackers):
    track(tracker, sequences, tmp_path, share=(i, 3))
  assert sorted(name for t in trackers for name in t.tracked) == [f"s{i}" for i in range(7)]
  assert max(t.frames_tracked for t in trackers) - min(t.frames_tracked for t in trackers) <= 8  # Of 2 .. 8 frames.
  results.read_folder(tmp_path, sequences)


def test_twelve_moved_starts(tmp_path):
  tracked = StandsStill()
  track(tracked, [sequence("a"), sequence("b")], tmp_path, run="sre")
  assert len(tracked.tracked) == 24 and names(tmp_path / "results")[0] == "a/a_001.json"
  runs = results.read_folder(tmp_path, [sequence("a"), sequence("b")])
  assert len(runs) == len(starts.SRE) == 12
  np.testing.assert_allclose(runs[0]["a"].boxes[0], starts.moved([10, 8, 6, 4], "left"))
  np.testing.assert_allclose(runs[11]["b"].boxes[0], starts.moved([10, 8, 6, 4], "scale_12"))


def test_moved_boxes_by_hand():
  box = [100, 50, 20, 10]
  np.testing.assert_allclose(starts.moved(box, "left"), [98, 50, 20, 10])
  np.testing.assert_allclose(starts.moved(box, "bottom_right"), [102, 51, 20, 10])
  np.testing.assert_allclose(starts.moved(box, "scale_8"), [102, 51, 16, 8])
  np.testing.assert_allclose(starts.moved(box, "scale_12"), [98, 49, 24, 12])


@given(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(1, 1e3), st.floats(1, 1e3)))
def test_scales_keep_the_centre_and_shifts_the_size(box):

  def centre(xywh):
    return geometry.xywh_to_center_wh(np.asarray(xywh, np.float32))[:2]

  for start in starts.SRE:
    moved = starts.moved(box, start)
    if start.startswith("scale"):
      np.testing.assert_allclose(centre(moved), centre(box), atol=1e-2)
    else:
      np.testing.assert_allclose(moved[2:], box[2:])


# --- what results were made of


def on_disk(folder, name, length=3, boxes=None):
  """A sequence of BMP files, all of the same number of bytes."""
  place = folder / name
  place.mkdir(parents=True, exist_ok=True)
  for t in range(length):
    if not (place / f"{t}.bmp").exists():
      cv2.imwrite(str(place / f"{t}.bmp"), np.full((32, 48), 10 * t, np.uint8))
  boxes = [[10.0, 8.0, 6.0, 4.0]] * length if boxes is None else boxes
  return from_labels(name, ImageFiles(sorted(place.glob("*.bmp"))), boxes, None, "test")


def replace_frame(path):
  before = path.stat()
  cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
  assert path.stat().st_size == before.st_size
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_results_of_replaced_frames_are_refused_and_redone_alone(tmp_path):
  """A frame of the same size in bytes, with the time of the old one."""

  def sequences():
    return [on_disk(tmp_path / "data", name) for name in "abc"]

  track(StandsStill(), sequences(), tmp_path / "out")
  replace_frame(tmp_path / "data" / "b" / "1.bmp")
  again = StandsStill()
  with pytest.raises(UserError, match=r"results/b.json: was made of other frames than b has now; remove .*--redo"):
    track(again, sequences(), tmp_path / "out")
  assert again.tracked == [] and names(tmp_path / "out" / "results") == ["a.json", "b.json", "c.json"]
  track(again, sequences(), tmp_path / "out", redo=True)
  assert again.tracked == ["b"]
  track(again, sequences(), tmp_path / "out")
  assert again.tracked == ["b"]


@pytest.mark.parametrize("change", [
    lambda folder: (folder / "1.bmp").rename(folder / "3.bmp"),  # The same frames in another order.
    lambda folder: shutil.copy(folder / "0.bmp", folder / "1.bmp"),
    lambda folder: (folder / "1.bmp").write_bytes((folder / "1.bmp").read_bytes() + b"0"),
])
def test_order_and_every_byte_of_the_frames_count(tmp_path, change):
  track(StandsStill(), [on_disk(tmp_path / "data", "a")], tmp_path / "out")
  change(tmp_path / "data" / "a")
  frames = ImageFiles(sorted((tmp_path / "data" / "a").glob("*.bmp")))
  with pytest.raises(UserError, match="a.json: was made of other frames"):
    track(StandsStill(), [from_labels("a", frames, [[10, 8, 6, 4]] * 3, None, "test")], tmp_path / "out")


def test_a_copied_data_set_is_the_same(tmp_path):
  track(StandsStill(), [on_disk(tmp_path / "data", "a")], tmp_path / "out")
  (tmp_path / "elsewhere" / "a").mkdir(parents=True)
  for t in range(3):
    shutil.copyfile(tmp_path / "data" / "a" / f"{t}.bmp", tmp_path / "elsewhere" / "a" / f"{t}.bmp")
  again = StandsStill()
  track(again, [on_disk(tmp_path / "elsewhere", "a")], tmp_path / "out")
  assert again.tracked == []


@pytest.mark.parametrize("run", ["ope", "reset"])
def test_later_labels_count_where_the_truth_starts_the_tracker_again(tmp_path, run):
  moved = [[10, 8, 6, 4], [10, 8, 6, 4], [11, 8, 6, 4]]
  track(StandsStill(), [on_disk(tmp_path / "data", "a")], tmp_path / "out", run=run)
  changed, again = [on_disk(tmp_path / "data", "a", boxes=moved)], StandsStill()
  if run == "reset":
    with pytest.raises(UserError, match="a.json: was made of other labels than a has now"):
      track(again, changed, tmp_path / "out", run=run)
    track(again, changed, tmp_path / "out", run=run, redo=True)
    assert again.tracked == ["a"]
  else:
    track(again, changed, tmp_path / "out", run=run)
    assert again.tracked == []


def test_results_of_an_earlier_version_are_taken_and_this_is_said(tmp_path, caplog):
  sequences = [on_disk(tmp_path / "data", name) for name in "ab"]
  track(StandsStill(), sequences, tmp_path / "out")
  for name in "ab":
    path = tmp_path / "out" / "results" / f"{name}.json"
    content = json.loads(path.read_text())
    assert set(content.pop("made_of")) == {"frames"}
    path.write_text(json.dumps(content))
  again = StandsStill()
  track(again, sequences, tmp_path / "out")
  assert again.tracked == [] and len(caplog.records) == 1
  assert "2 results of an earlier version do not say which frames they were made of" in caplog.text
  track(again, sequences, tmp_path / "out", redo=True)
  assert again.tracked == ["a", "b"] and len(caplog.records) == 1


def test_redo_leaves_nothing_that_was_made_of_old_results(tmp_path):
  track(StandsStill(), [on_disk(tmp_path / "data", name) for name in "ab"], tmp_path / "out")
  (tmp_path / "out" / "videos").mkdir()
  for name in ("videos/a.mp4", "videos/b.mp4", "videos/b.png", "metrics.json"):
    (tmp_path / "out" / name).write_text("old")
  replace_frame(tmp_path / "data" / "b" / "1.bmp")
  track(StandsStill(), [on_disk(tmp_path / "data", name) for name in "ab"], tmp_path / "out", redo=True)
  assert names(tmp_path / "out" / "videos") == ["a.mp4"]
  running.prepare(str(tmp_path / "out"), tracker="moving", run="ope", redo=True)
  assert names(tmp_path / "out") == ["run.json"]


# --- sequences that break


class BreaksAt(StandsStill):
  """The streams whose names contain one of `broken` do not come to their ends."""

  def __init__(self, *broken):
    super().__init__()
    self._broken = broken

  def run(self, streams):
    streams = list(streams)
    broken = [s.name for s in streams if any(part in s.name for part in self._broken)]
    errors = {name: UserError(f"{name}: frame 1 is gone") for name in broken}
    yield from super().run([s for s in streams if s.name not in errors])
    if errors:
      raise BrokenStreams(errors, {})


def test_what_breaks_is_named_and_the_others_are_written(tmp_path):
  sequences = [sequence(name) for name in "abcd"]
  with pytest.raises(BrokenStreams, match="b: frame 1 is gone, and 1 more") as caught:
    track(BreaksAt("b", "d"), sequences, tmp_path)
  assert sorted(caught.value.errors) == ["b", "d"]
  assert names(tmp_path) == ["results/a.json", "results/c.json", "run.json"]
  assert running.untracked(sequences, str(tmp_path), run="ope") == ["b", "d"]
  again = StandsStill()
  track(again, sequences, tmp_path, without=["b"])
  assert again.tracked == ["d"]


def test_a_sequence_breaks_as_a_whole_where_one_of_its_starts_does(tmp_path):
  sequences = [sequence(name) for name in "ab"]
  with pytest.raises(BrokenStreams) as caught:
    track(BreaksAt("b_003", "b_011"), sequences, tmp_path, run="sre")
  assert {name: str(error) for name, error in caught.value.errors.items()} == {"b": "b/b_003: frame 1 is gone"}
  assert len(names(tmp_path / "results" / "a")) == 12
  assert running.untracked(sequences, str(tmp_path), run="sre") == ["b"]


def test_shares_do_not_depend_on_what_broke_elsewhere(tmp_path):
  sequences, tracked = [sequence(f"s{i}", 3 + i) for i in range(6)], [StandsStill(), StandsStill()]
  track(tracked[0], sequences, tmp_path, share=(0, 2), without=["s4"])
  track(tracked[1], sequences, tmp_path, share=(1, 2))
  assert [tracker.tracked for tracker in tracked] == [["s5", "s3", "s1"], ["s4", "s2", "s0"]]


def test_frames_that_cannot_be_read_break_a_sequence_before_it_is_tracked(tmp_path):
  sequences = [on_disk(tmp_path / "data", name) for name in "ab"]
  (tmp_path / "data" / "a" / "1.bmp").unlink()
  tracker = StandsStill()
  with pytest.raises(BrokenStreams, match="data/a/1.bmp: cannot be read"):
    track(tracker, sequences, tmp_path / "out")
  assert tracker.tracked == ["b"]
