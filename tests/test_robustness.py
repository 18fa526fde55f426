"""scripts/robustness.py: the conditions themselves, and trackers under them."""

import dataclasses
import shutil

import cv2
import evaluating
import numpy as np
import pytest

import small
from input_pipeline import datasets
from input_pipeline.conditions import CONDITIONS, under
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import FrameShape, Sequence
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax import results
from siamdff_jax.evaluation import trackers
from siamdff_jax.experiments import robustness
from siamdff_jax.tracking.baselines import BaselineRunner
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.tracking.streams import BrokenStreams

CORNERS = [(20, 12), (41, 30), (60, 50)]  # Of a target of 9x7 pixels in frames of 96x81.


@pytest.fixture
def sequence():
  """A bright target before weak clutter, in frames with an odd number of rows."""
  rng = np.random.default_rng(0)
  frames = rng.integers(90, 110, (3, 81, 96)).astype(np.uint8)
  for frame, (x, y) in zip(frames, CORNERS, strict=True):
    frame[y:y + 7, x:x + 9] = 190
  boxes = np.array([[x, y, 9, 7] for x, y in CORNERS], np.float32)
  lookalikes = np.array([[1, 10, 20, 4, 6]], np.float32)
  return Sequence("spot", ArrayFrames(frames), boxes, np.ones(3, bool), shape=FrameShape(81, 96), lookalikes=lookalikes)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_changes_pixels_only_and_the_same_way_each_time(sequence, name):
  changed = under(sequence, CONDITIONS[name])
  in_order = list(changed.frames)
  assert len(in_order) == len(changed.frames) == 3
  for t in (2, 0, 1):
    frame = changed.frames[t]
    assert frame.dtype == np.uint8 and frame.shape == changed.shape
    np.testing.assert_array_equal(frame, in_order[t])
  last = in_order[-1]
  assert (name == "as_recorded") == (last.shape == (81, 96) and (last == sequence.frames[2]).all())
  assert changed.name == "spot" and changed.visible.all()


@pytest.mark.parametrize("name", CONDITIONS)
def test_boxes_stay_on_the_target(sequence, name):
  changed = under(sequence, CONDITIONS[name])
  for frame, (x, y, w, h) in zip(changed.frames, changed.boxes, strict=True):
    ground = np.median(frame)
    contrast = np.abs(frame.astype(float) - ground)
    contrast[contrast < contrast.max() / 2] = 0
    rows, columns = np.indices(frame.shape) + 0.5
    centre = [(columns * contrast).sum() / contrast.sum(), (rows * contrast).sum() / contrast.sum()]
    np.testing.assert_allclose(centre, [x + w / 2, y + h / 2], atol=0.6)


def test_levels_follow_their_formulas(sequence):
  frame = sequence.frames[0].astype(float)

  def of(name, t=0):
    return CONDITIONS[name].change(sequence.frames[0], t)

  np.testing.assert_array_equal(of("inverted"), 255 - frame)
  np.testing.assert_allclose(of("low_gain"), 0.3 * frame + 89.6, atol=0.5)
  np.testing.assert_allclose(of("gamma_2"), frame**2 / 255, atol=0.5)
  np.testing.assert_array_equal(of("gain_drift", 0), frame)  # The drift starts at none.
  np.testing.assert_allclose(of("gain_drift", 25), np.clip((frame - 128) * np.exp(0.5) + 168, 0, 255), atol=0.5)
  assert of("stretched").min() == 0 and of("stretched").max() == 255
  noise = of("noise") - frame
  assert abs(noise.mean()) < 0.5 and 9 < noise.std() < 11 and (of("noise", 1) != of("noise", 0)).any()
  stripes = of("stripes") - frame
  assert (stripes == stripes[:1]).all() and stripes.std() > 3
  np.testing.assert_array_equal(of("stripes", 1), of("stripes", 0))
  np.testing.assert_allclose(of("half_size")[:40], frame[:80].reshape(40, 2, 48, 2).mean((1, 3)), atol=0.5)


def test_labels_are_in_the_pixels_of_the_condition(sequence):
  half = under(sequence, CONDITIONS["half_size"])
  np.testing.assert_array_equal(half.boxes, sequence.boxes / 2)
  np.testing.assert_array_equal(half.lookalikes, [[1, 5, 10, 2, 3]])
  assert half.shape == (41, 48) and under(sequence, CONDITIONS["double_size"]).shape == (162, 192)
  assert under(dataclasses.replace(sequence, shape=None), CONDITIONS["half_size"]).shape is None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_dataset(folder, 2, 10, seed=5, width=96, height=80)
  return str(folder)


@pytest.mark.end_to_end
def test_trackers_are_tracked_under_each_condition_and_not_again(data, tmp_path, monkeypatch):
  checkpoint = small.write_checkpoint(tmp_path / "tiny", small.config(**small.PLAIN))
  wanted = ["double_size", "inverted"]
  arguments = ([f"tiny={checkpoint}"], ["KCF"], "antiuav410", data, str(tmp_path / "out"))
  text = robustness.assess(*arguments, conditions=wanted)
  rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
  assert [row[0] for row in rows] == ["condition", rows[1][0], "as_recorded", "inverted", "double_size"] * 2
  assert [row[3] for row in rows[2:5]] == ["-", "as_recorded", "as_recorded"]
  assert (tmp_path / "out" / "robustness.md").read_text() == text + "\n"
  for name in ("robustness.png", "conditions.png", "tiny/report.html", "KCF/report.html"):
    assert (tmp_path / "out" / name).stat().st_size > 1000

  # As recorded it is what evaluate.py gives, and scores are in those pixels under every condition.
  evaluating.run([], ["KCF"], "antiuav410", data, str(tmp_path / "plain"))
  sequences = datasets.load("antiuav410", data)
  plain = results.read_folder(str(tmp_path / "plain" / "KCF"), sequences)[0]
  for sequence in sequences:
    found = results.read(str(tmp_path / "out" / "KCF" / "as_recorded" / "results" / f"{sequence.name}.json"))
    np.testing.assert_array_equal(found.boxes, plain[sequence.name].boxes)
    double = results.read(str(tmp_path / "out" / "KCF" / "double_size" / "results" / f"{sequence.name}.json"))
    np.testing.assert_array_equal(double.boxes[0], 2 * sequence.boxes[0].astype(np.float64))

  def refuses(self, streams):
    assert not list(streams)
    return iter(())

  for kind in (Runner, BaselineRunner):
    monkeypatch.setattr(kind, "run", refuses)
  assert robustness.assess(*arguments, conditions=wanted) == text


def test_a_broken_sequence_is_left_out_under_every_condition(data, tmp_path, monkeypatch, caplog):
  shutil.copytree(data, tmp_path / "data")
  names = [sequence.name for sequence in datasets.load("antiuav410", data)]

  class Keeps:
    frames_tracked, seconds = 1, 1.0

    def run(self, streams):
      streams = list(streams)
      yield from ((s.name, results.Result([s.box for _ in s.frames])) for s in streams if s.name != names[0])
      if any(s.name == names[0] for s in streams):
        raise BrokenStreams({names[0]: UserError(f"{names[0]}: frame 3 is gone")}, {})

  monkeypatch.setattr(trackers, "runner", lambda source, *_: (Keeps(), source))
  arguments = (["a=x", "b=y"], [], "antiuav410", str(tmp_path / "data"), str(tmp_path / "out"))
  with pytest.raises(UserError, match=f"1 of 2 sequences were left out, .*: {names[0]} is missing"):
    robustness.assess(*arguments, conditions=["inverted"])
  assert caplog.text.count(f"left out: {names[0]}: frame 3 is gone") == 1
  text = (tmp_path / "out" / robustness.TABLE_FILE).read_text()
  assert "a: 1 sequences" in text and "1 of 2 sequences were left out" in text
  frame = next((tmp_path / "data").rglob(f"{names[1]}/*.jpg"))
  cv2.imwrite(str(frame), 255 - cv2.imread(str(frame), cv2.IMREAD_GRAYSCALE))
  with pytest.raises(UserError, match=f"a/as_recorded/results/{names[1]}.json: was made of other frames"):
    robustness.assess(*arguments, conditions=["inverted"])


def test_scores_are_in_the_pixels_as_recorded(data, tmp_path):
  """A tracker that is right in doubled frames is right."""
  sequences = datasets.load("antiuav410", data)
  condition = CONDITIONS["double_size"]
  (tmp_path / "results").mkdir()
  for sequence in sequences:
    boxes = np.where(sequence.visible[:, None], sequence.boxes, np.nan).astype(np.float64)
    results.write(tmp_path / "results" / f"{sequence.name}.json", results.Result(boxes * 2), init=boxes[0] * 2)
  found = robustness.read_as_recorded(str(tmp_path), sequences, condition)[0]
  for sequence in sequences:
    np.testing.assert_array_equal(found[sequence.name].boxes[sequence.visible], sequence.boxes[sequence.visible])


def test_problems_are_named(data, tmp_path):
  with pytest.raises(UserError, match="--conditions: 'foggy', expected some of as_recorded, inverted"):
    robustness.assess([], ["KCF"], "antiuav410", data, str(tmp_path), conditions=["foggy"])
  with pytest.raises(UserError, match="no sequence has 'none' in its name, which `only` asks for"):
    robustness.assess([], ["KCF"], "antiuav410", data, str(tmp_path), only="none")
  with pytest.raises(UserError, match="no tracker to evaluate"):
    robustness.assess([], [], "antiuav410", data, str(tmp_path))
