"""Running a tracker into a folder of results: what is done is not done again, and results are never mixed up."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from input_pipeline.errors import DataError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import from_labels
from siamdff_jax import boxes as box_forms
from siamdff_jax.evaluation import results, running, starts
from siamdff_jax.evaluation.results import Result


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
  running.prepare(str(out), tracker=name, run=run)
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
  with pytest.raises(DataError, match=r"run.json: the results there are of another tracker \(still, here moving\)"):
    running.prepare(str(tmp_path), tracker="moving", run="ope")
  with pytest.raises(DataError, match="of another run"):
    running.prepare(str(tmp_path), tracker="still", run="sre")
  for other in (sequence("a", 5), sequence("a", first=(11.0, 8.0, 6.0, 4.0))):
    with pytest.raises(DataError, match="a.json: is of other data"):
      track(StandsStill(), [other], tmp_path)
  assert names(tmp_path) == ["results/a.json", "run.json"]
  (tmp_path / "run.json").write_text("{")
  with pytest.raises(DataError, match="run.json: cannot be read"):
    running.prepare(str(tmp_path), tracker="still", run="ope")


def test_redo_replaces_all_of_another_tracker_and_nothing_of_the_same(tmp_path):
  track(StandsStill(), [sequence("a"), sequence("b")], tmp_path)
  running.prepare(str(tmp_path), tracker="still", run="ope", redo=True)
  assert names(tmp_path) == ["results/a.json", "results/b.json", "run.json"]
  running.prepare(str(tmp_path), tracker="moving", run="ope", redo=True)
  assert names(tmp_path) == ["run.json"] and running.frames_per_second(str(tmp_path)) is None


def test_an_absent_first_frame_is_refused(tmp_path):
  absent = from_labels("a", ArrayFrames(np.zeros((2, 8, 8), np.uint8)), [[0] * 4, [1, 1, 3, 3]], None, "test")
  with pytest.raises(DataError, match="a: the target is absent in the first frame"):
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
  centre = lambda b: np.asarray(box_forms.xywh_to_center_wh(np.asarray(b, np.float32)))[:2]
  for start in starts.SRE:
    moved = starts.moved(box, start)
    if start.startswith("scale"):
      np.testing.assert_allclose(centre(moved), centre(box), atol=1e-2)
    else:
      np.testing.assert_allclose(moved[2:], box[2:])
