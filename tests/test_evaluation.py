"""Metrics by hand, protocols on cases small enough to count, and the published scores of UAV123_20L."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape, from_labels
from siamdff_jax.evaluation import metrics, protocols
from siamdff_jax.results import Result

NAN = [np.nan] * 4
BOX = [10, 20, 8, 4]
ALL = [name for name in protocols.PROTOCOLS if name != "vot"]  # All of one-pass runs.
FAMILY = ("success_auc", "precision_20", "precision_5", "normalized_precision", "sa")


def sequence(boxes, name="s", visible=None, **labels):
  found = from_labels(name, None, boxes, visible, "test")
  labels = {key: np.array(x) for key, x in labels.items()}
  return dataclasses.replace(found, shape=FrameShape(512, 640), frame_labels=labels)


def score(protocol, truth, predicted, starts=(0,), **labels):
  """The overall numbers of one sequence."""
  result = Result(predicted, starts=starts)
  return protocols.evaluate(protocol, [sequence(truth, **labels)], {"s": result}).metrics["overall"]


# Metrics, by hand.


def test_iou():
  predicted = [BOX, [14, 20, 8, 4], [18, 20, 8, 4], [10, 20, 4, 2], [0, 0, 0, 0], [12, 22, -8, -4], NAN]
  expected = [1, 16 / 48, 0, 8 / 32, 0, 0, np.nan]
  np.testing.assert_allclose(metrics.iou(predicted, [BOX] * 7), expected, rtol=1e-12)
  assert metrics.iou(np.zeros((1, 4)), np.zeros((1, 4))) == 0


def test_center_errors():
  np.testing.assert_allclose(metrics.centers(np.array([BOX])), [[13.5, 21.5]])
  predicted = np.array([[13, 24, 8, 4], [6, 18, 16, 8], NAN])  # Moved by (3, 4); grown about the centre; absent.
  truth = np.array([BOX] * 3)
  np.testing.assert_allclose(metrics.center_errors(predicted, truth), [5, 0, np.nan])
  np.testing.assert_allclose(metrics.normalized_errors(predicted, truth), [math.hypot(3 / 8, 4 / 4), 0, np.nan])


def test_curves():
  success = metrics.success_curve(np.array([1, 0.5, 0, -1, np.nan]))
  np.testing.assert_allclose(success[[0, 1, 9, 10, 19, 20]], [2 / 5, 2 / 5, 2 / 5, 1 / 5, 1 / 5, 0])  # Strictly above.
  precision = metrics.precision_curve(np.array([0, 5, 20.5, -1, np.nan]))
  np.testing.assert_allclose(precision[[0, 4, 5, 20, 21, 50]], np.array([2, 2, 3, 3, 4, 4]) / 5)  # At most.
  assert metrics.area_under_curve(np.array([1, 0.5, 0])) == 0.5


def test_state_accuracy():
  truth = np.array([BOX, BOX, [0] * 4, [0] * 4, BOX, [0] * 4], float)
  exist = np.array([1, 1, 0, 0, 1, 1], bool)  # The last one exists without a box: skipped.
  predicted = np.array([BOX, [14, 20, 8, 4], NAN, [0] * 4, NAN, BOX], float)
  expected = (1 + 1 / 3 + 1 + 0 + 0) / 5  # [] is right about absence; four zeros are a prediction.
  assert metrics.state_accuracy(predicted, truth, exist) == pytest.approx(expected, abs=1e-12)


def test_challenge_accuracy():
  truth = np.array([BOX, BOX, BOX, BOX, [0] * 4, [0] * 4], float)
  visible = np.array([1, 1, 1, 1, 0, 0], bool)
  predicted = np.array([BOX, [14, 20, 8, 4], NAN, BOX, NAN, BOX], float)
  expected = (1 + 1 / 3 + 0 + 1 + 1 + 0) / 6 - 0.2 * (1 / 4) ** 0.3
  assert metrics.challenge_accuracy(predicted, truth, visible) == pytest.approx(expected, abs=1e-12)
  nothing_there = metrics.challenge_accuracy(predicted[4:], truth[4:], visible[4:])
  assert nothing_there == pytest.approx(0.5)


# Protocols.


@pytest.mark.parametrize("protocol", ALL)
def test_a_perfect_tracker(protocol):
  truth = np.array([BOX, [12, 20, 8, 4], [300, 1, 2, 2]])
  overall = score(protocol, truth, truth)
  assert overall.pop("success_auc") == pytest.approx(20 / 21)  # IoU is never above the last threshold, 1.
  assert overall == dict.fromkeys(overall, 1)
  assert set(FAMILY) - {"success_auc"} <= set(overall)


@pytest.mark.parametrize("protocol", ALL)
def test_the_output_form(protocol):
  scores = protocols.evaluate(protocol, [sequence([BOX] * 2, "a"), sequence([BOX] * 2, "b")],
                              {"a": Result([BOX, NAN]), "b": Result([BOX] * 2), "unknown": Result([BOX])})
  assert list(scores.metrics) == ["protocol", "overall", "sequences"] and scores.metrics["protocol"] == protocol
  assert list(scores.metrics["sequences"]) == ["a", "b"]
  official = protocols.PROTOCOLS[protocol].official
  for numbers in [scores.metrics["overall"], *scores.metrics["sequences"].values()]:
    assert set(FAMILY) <= set(numbers) and tuple(numbers)[:len(official)] == official
    assert all(type(value) is float and -0.2 <= value <= 1 for value in numbers.values())
  for key, value in scores.metrics["overall"].items():  # Each sequence weighs the same, whatever its length.
    assert value == pytest.approx((scores.metrics["sequences"]["a"][key] + scores.metrics["sequences"]["b"][key]) / 2)
  assert {key: curve.shape for key, curve in scores.curves.items()} == {
      "success": (21,), "precision": (51,), "normalized_precision": (51,)}
  assert scores.curves["success"].mean() == pytest.approx(scores.metrics["overall"]["success_auc"])
  json.dumps(scores.metrics, allow_nan=False)


# Frame 0 is given. Then: the target is away and the tracker says so; away, but the tracker keeps a box; there,
# but the tracker says absent.
ABSENT_TRUTH = [BOX, [0] * 4, [0] * 4, BOX]
ABSENT_PREDICTED = [BOX, NAN, BOX, NAN]


@pytest.mark.parametrize("protocol, auc, precision", [
    ("otb", 20 / 21 / 4, 3 / 4),  # Absent truth: a miss for success, a hit for precision; an absent prediction: a miss.
    ("antiuav410", 20 / 21 / 4, 3 / 4),
    ("antiuav", 20 / 21 / 4, 3 / 4),
    ("challenge", 20 / 21 / 4, 3 / 4),
    ("plain", 20 / 21 / 2, 1 / 2),  # Only the two frames that show the target.
    ("lasot", 2 * 20 / 21 / 4, 2 / 4),  # Absent truth is a miss of both; an absent prediction repeats the box before.
    ("got10k", 0, 0),  # Only the last frame counts.
])
def test_absent_frames(protocol, auc, precision):
  overall = score(protocol, ABSENT_TRUTH, ABSENT_PREDICTED)
  assert overall["success_auc"] == pytest.approx(auc)
  assert overall["precision_5"] == overall["normalized_precision"] == precision
  assert overall["sa"] == overall["presence_accuracy"] == 2 / 4
  if protocol in ("antiuav", "challenge"):
    assert overall["challenge_accuracy"] == pytest.approx(2 / 4 - 0.2 * (1 / 2) ** 0.3)


def test_an_absent_prediction_near_the_corner_is_a_zero_box_in_antiuav410_only():
  truth = [BOX, [2, 2, 4, 4]]  # Centre (3.5, 3.5), 4 * sqrt(2) px from the centre (-.5, -.5) of 0,0,0,0.
  assert score("antiuav410", truth, [BOX, NAN])["precision_20"] == 1
  assert score("otb", truth, [BOX, NAN])["precision_20"] == 0.5
  assert score("plain", truth, [BOX, NAN])["precision_20"] == 0.5


@pytest.mark.parametrize("protocol", ["antiuav", "antiuav410", "challenge", "lasot", "plain"])
def test_four_zeros_are_a_prediction_and_an_empty_entry_is_not(protocol):
  truth = [BOX, [0] * 4]
  assert score(protocol, truth, [BOX, NAN])["sa"] == 1
  assert score(protocol, truth, [BOX, [0] * 4])["sa"] == 0.5


def test_truth_at_the_left_border():
  truth = [BOX, [0, 20, 8, 4]]
  assert score("antiuav410", truth, truth)["success_auc"] == pytest.approx(20 / 21 / 2)  # Its x of 0 is not positive.
  assert score("otb", truth, truth)["success_auc"] == pytest.approx(20 / 21)  # Matlab's x is 1.
  assert score("plain", truth, truth)["success_auc"] == pytest.approx(20 / 21)


def test_the_first_prediction_is_replaced_except_in_sa():
  for protocol in ALL:  # (GOT-10k leaves the frame out.)
    overall = score(protocol, [BOX, BOX], [[100, 100, 8, 4], BOX])
    assert overall["success_auc"] == pytest.approx(20 / 21) and overall["precision_5"] == 1
    assert overall["sa"] == 0.5


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 2**31), st.sampled_from(ALL))
def test_order_of_sequences_does_not_matter(order, seed, protocol):
  random = np.random.default_rng(seed)
  sequences, results = [], {}
  for i in range(5):
    truth = random.uniform(1, 50, (7, 4))
    truth[random.integers(1, 7)] = 0
    predicted = truth + random.normal(0, 4, (7, 4))
    predicted[random.integers(7)] = np.nan
    sequences.append(sequence(truth, f"s{i}"))
    results[f"s{i}"] = Result(predicted)
  straight = protocols.evaluate(protocol, sequences, results)
  shuffled = protocols.evaluate(protocol, [sequences[i] for i in order], results)
  assert straight.metrics == shuffled.metrics  # To the last bit.
  for key, curve in straight.curves.items():
    np.testing.assert_array_equal(curve, shuffled.curves[key])


def test_lasot_repeats_the_last_valid_box():
  truth = [BOX] * 5
  repeated = score("lasot", truth, [BOX, [14, 20, 8, 4], NAN, [30, 30, 0, 4], BOX])
  assert repeated == pytest.approx(
      score("lasot", truth, [BOX] + [[14, 20, 8, 4]] * 3 + [BOX]) | {
          key: repeated[key] for key in ("sa", "presence_accuracy")})  # These take the answers as they are.
  assert repeated["precision_5"] == 1 and repeated["normalized_precision"] == 2 / 5  # 4 px are half of its width.


def test_lasot_takes_only_flagged_frames_for_absent():
  truth = [BOX, [0] * 4, [0] * 4, BOX]
  found = score("lasot", truth, truth, full_occlusion=[0, 1, 0, 0], out_of_view=[0, 0, 0, 0])
  assert found["success_auc"] == pytest.approx(20 / 21 / 2) and found["precision_5"] == 3 / 4
  assert score("lasot", truth, truth, absent=[0, 1, 0, 0]) == found  # As the toolkit's own annotations have it.


def test_got10k_by_hand():
  truth = [BOX, BOX, [10, 20, 8, 4], [636, 20, 8, 4], [10, 20, 8, 4]]
  predicted = [BOX, [14, 20, 8, 4], BOX, [638, 20, 8, 4], BOX]
  overall = score("got10k", truth, predicted, cover=[8, 8, 0, 8, 8])
  # Counted: frame 1 with IoU 1/3; frame 3, from x = 637 and 639 (1-based) cut at 640, widths 3 and 1: 1/3; frame 4.
  assert overall["ao"] == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
  assert overall["sr_50"] == overall["sr_75"] == pytest.approx(1 / 3)


def test_got10k_pools_frames():
  sequences = [sequence([BOX] * 4, "a"), sequence([BOX] * 2, "b")]
  scores = protocols.evaluate("got10k", sequences, {"a": Result([BOX] * 4), "b": Result([BOX, NAN])})
  assert scores.metrics["overall"]["ao"] == 3 / 4 and scores.weights == {"a": 3, "b": 1}
  assert scores.curves["success"][0] == 3 / 4


def test_got10k_problems_are_named():
  unknown = dataclasses.replace(sequence([BOX] * 2), shape=None)
  with pytest.raises(UserError, match="s: the size of its frames is not known"):
    protocols.evaluate("got10k", [unknown], {"s": Result([BOX] * 2)})
  with pytest.raises(UserError, match="s: no frame after the first shows the target"):
    score("got10k", [BOX] * 3, [BOX] * 3, cover=[8, 0, 0])


def test_vot_by_hand():
  """40 frames: a failure in frame 20, restarted in frame 25, none after that."""
  truth = [BOX] * 40
  far = [200, 200, 8, 4]
  predicted = [BOX] * 12 + [[14, 20, 8, 4]] * 8 + [far] + [NAN] * 4 + [BOX] * 15
  overall = score("vot", truth, predicted, starts=(0, 25))
  # Frames 10, 11 and 35..39 with IoU 1, frames 12..19 with 1/3; ten from each start on do not count.
  assert overall["accuracy"] == pytest.approx((2 + 5 + 8 / 3) / 15)
  assert overall["failures"] == 1 and overall["failures_per_100"] == 2.5
  assert score("vot", truth, [BOX] * 40) == {"accuracy": 1, "failures": 0, "failures_per_100": 0}
  # An absent target is no failure; an absent answer for a visible one is. Without a restart nothing follows.
  away = [BOX] * 5 + [[0] * 4] * 10 + [BOX] * 25
  assert score("vot", away, [BOX] * 5 + [NAN] * 10 + [BOX] * 25)["failures"] == 0
  assert score("vot", truth, [BOX] * 38 + [NAN] * 2) == {"accuracy": 1, "failures": 1, "failures_per_100": 2.5}


def test_reset_based_and_one_pass_runs_are_not_taken_for_each_other():
  with pytest.raises(UserError, match="s: the tracker goes on after its failure in frame 1, expected a reset-"):
    score("vot", [BOX] * 4, [BOX, NAN, BOX, BOX])
  with pytest.raises(UserError, match="started 2 times on s: a reset-based run"):
    score("otb", [BOX] * 4, [BOX, NAN, BOX, BOX], starts=(0, 2))


def test_runs_are_averaged():
  sequences = [sequence([BOX] * 2, "a"), sequence([BOX] * 2, "b")]
  runs = [{"a": Result([BOX, BOX]), "b": Result([BOX, NAN])}, {"a": Result([BOX, BOX]), "b": Result([BOX, BOX])}]
  scores = protocols.evaluate_runs("plain", sequences, runs)
  assert scores.metrics["sequences"]["b"]["sa"] == 0.75 and scores.metrics["overall"]["sa"] == 0.875
  assert scores.metrics["overall"]["success_auc"] == pytest.approx(scores.curves["success"].mean())
  assert [run["sa"] for run in scores.metrics["runs"]] == [0.75, 1]
  assert protocols.evaluate_runs("plain", sequences, runs[:1]).metrics == protocols.evaluate(
      "plain", sequences, runs[0]).metrics


def test_every_format_has_a_protocol():
  assert {protocols.of_format(name) for name in datasets.FORMATS} <= set(protocols.PROTOCOLS)


def test_problems_are_named():
  two = [sequence([BOX] * 3, "a"), sequence([BOX], "b")]
  good = {"a": Result([BOX] * 3), "b": Result([BOX])}
  cases = [
      ("plain", [], good, "no sequences"),
      ("plain", two, {"a": good["a"]}, "no result for the sequence b"),
      ("plain", two, {**good, "a": Result([BOX] * 2)}, "the result for a has 2 boxes, expected 3"),
      ("plain", [two[0], two[0]], good, "two sequences are named a"),
      ("plain", [sequence([[0] * 4, BOX], "a")], {"a": Result([BOX] * 2)}, "of a is absent in the first frame"),
      ("plane", two, good, "no protocol 'plane', expected one of antiuav"),
  ]
  for protocol, sequences, results, message in cases:
    with pytest.raises(UserError, match=message):
      protocols.evaluate(protocol, sequences, results)


def test_all_published_scores_of_uav20l(data_root):
  folder = data_root / "conformance"
  published = json.loads((folder / "UAV123_20L_published.json").read_text())
  with np.load(folder / "UAV123_20L.npz") as file:
    arrays = dict(file)
  names = sorted({key.split("/")[0] for key in arrays})
  to_zero_based = (1, 1, 0, 0)  # As the reader of the format otb does.
  sequences = [sequence(arrays[f"{name}/gt"] - to_zero_based, name) for name in names]
  compared = 0
  for tracker in published["success_auc"]:
    results = {name: Result(arrays[f"{name}/{tracker}"] - to_zero_based) for name in names}
    overall = protocols.evaluate("otb", sequences, results).metrics["overall"]
    for metric in ("success_auc", "precision_20"):
      assert overall[metric] == pytest.approx(published[metric][tracker], abs=0.0005), (tracker, metric)
      compared += 1
  assert compared == 42
