"""Losses, bins, presence and attributes, on cases small enough to count."""

import numpy as np
import pytest

from input_pipeline.sequences import from_labels
from siamdff_jax.evaluation import analysis, comparison
from siamdff_jax.results import Result

NAN = [np.nan] * 4


def sequence(boxes, name="s", attributes=()):
  return from_labels(name, None, boxes, None, "test", attributes)


def overlap(*runs):
  """Overlaps from (value, count) runs."""
  return np.concatenate([np.full(count, value, float) for value, count in runs])


def test_losses_by_hand():
  nan = np.nan
  assert analysis.failures(overlap((0.8, 30))) == analysis.Failures(None, 0, 0, 0, 0, False, 0, 0)
  assert analysis.failures(overlap((0.8, 5), (0.1, 9), (0.8, 5))).losses == 0  # Nine frames are no loss, ten are.
  assert analysis.failures(overlap((0.8, 5), (0.1, 10), (0.11, 5))) == analysis.Failures(5, 1, 10, 10, 1, False, 0, 0)
  found = analysis.failures(overlap((0.8, 5), (0, 12), (0.5, 1), (0.8, 4), (0, 3), (0.9, 1), (0, 20)))
  assert found == analysis.Failures(
      first=5, losses=2, lost_frames=32, longest=20, recovered=1, lost_at_end=True, returns=0, back=0)
  # Absent frames neither count nor end a loss; the given first frame does not count.
  found = analysis.failures(overlap((0, 1), (0.9, 1), (0, 6), (nan, 50), (0, 4), (0.9, 1), (nan, 3)))
  assert found == analysis.Failures(
      first=2, losses=1, lost_frames=10, longest=10, recovered=1, lost_at_end=False, returns=1, back=1)
  assert analysis.failures(np.array([0.0])).losses == 0


def test_returns_by_hand():
  nan = np.nan

  def counts(*runs):
    found = analysis.failures(overlap(*runs))
    return found.returns, found.back

  assert counts((0.8, 5), (nan, 9)) == (0, 0)  # Never seen again.
  assert counts((0.8, 5), (nan, 9), (0.11, 1)) == (1, 1)
  # The fifteenth frame still counts, the sixteenth does not.
  assert counts((0.8, 5), (nan, 1), (0.1, 14), (0.2, 9)) == (1, 1)
  assert counts((0.8, 5), (nan, 1), (0.1, 15), (0.2, 9)) == (1, 0)
  assert counts((0.8, 5), (nan, 1), (0, 3)) == (1, 0)  # Too few frames left are no excuse.
  assert counts((0.8, 1), (nan, 2), (0.8, 1), (nan, 2), (0, 20), (nan, 2), (0, 2), (0.5, 1)) == (3, 2)


def test_recovery_pools_the_returns_of_all_sequences():
  found = [analysis.failures(overlap(*runs)) for runs in (
      [(0.8, 5), (np.nan, 3), (0.8, 5), (np.nan, 3), (0.8, 5), (np.nan, 3), (0.8, 5)],
      [(0.8, 5), (np.nan, 3), (0, 20)], [(0.8, 30)], [(0.8, 30)])]
  pooled = analysis.recovery(found)
  assert pooled.returns == 4 and pooled.back.value == pytest.approx(3 / 4)  # Not the mean of 1 and 0.
  assert (pooled.back.low, pooled.back.high) == (0, 1)  # Drawn anew, two sequences are at times the same one twice.
  assert pooled.lost_for_good.value == 1 / 4
  # Wilson's formula at 1 of 4, z = 1.959964.
  middle, half, below = 1 / 4 + 3.841459 / 8, 1.959964 * np.sqrt(3 / 64 + 3.841459 / 64), 1 + 3.841459 / 4
  assert pooled.lost_for_good[1:] == pytest.approx(((middle - half) / below, (middle + half) / below), abs=1e-6)
  none = analysis.recovery(found[2:])
  assert none.returns == 0 and np.isnan(none.back).all() and none.lost_for_good.low == 0 < none.lost_for_good.high


def test_overlaps_know_absence_from_a_miss():
  s = sequence([[10, 20, 8, 4], [10, 20, 8, 4], [0] * 4, [10, 20, 8, 4]])
  found = analysis.overlaps(s, Result([[10, 20, 8, 4], NAN, [10, 20, 8, 4], [14, 20, 8, 4]]))
  np.testing.assert_allclose(found, [1, 0, np.nan, 1 / 3])
  found = analysis.errors(s, Result([[10, 20, 8, 4], NAN, [10, 20, 8, 4], [13, 24, 8, 4]]))
  np.testing.assert_allclose(found, [0, np.inf, np.nan, 5])


def test_size_bins():
  # Sides 4, 10, 20, 40 px; the first frame counts nowhere.
  boxes = [[50, 50, 4, 4], [50, 50, 4, 4], [50, 50, 5, 20], [50, 50, 20, 20], [50, 50, 40, 40]]
  s = sequence(boxes)
  perfect, lost = np.ones(5), np.zeros(5)
  groups = analysis.by_size([s], {"perfect": {"s": perfect}, "lost": {"s": lost}},
                            {"perfect": {"s": lost}, "lost": {"s": np.array([0, 5, 5.1, np.inf, 50])}})
  assert [(g.name, g.sequences, g.frames) for g in groups] == [
      ("< 8 px", 1, 1), ("8-16 px", 1, 1), ("16-32 px", 1, 1), ("> 32 px", 1, 1)]
  assert all(g.auc["perfect"].value == pytest.approx(20 / 21) and g.auc["lost"].value == 0 for g in groups)
  assert all(g.precision["perfect"].value == 1 for g in groups)
  assert [g.precision["lost"].value for g in groups] == [1, 0, 0, 0]


def test_a_bin_pools_frames_of_all_sequences():
  small, also = sequence([[5, 5, 4, 4]] * 4, "a"), sequence([[5, 5, 4, 4]] * 2, "b")
  (group,) = analysis.by_size([small, also], {"t": {"a": np.ones(4), "b": np.zeros(2)}},
                             {"t": {"a": np.array([0, 4, 4, 6]), "b": np.zeros(2)}})
  assert (group.sequences, group.frames) == (2, 4)
  assert group.auc["t"].value == pytest.approx(20 / 21 * 3 / 4)
  assert group.precision["t"].value == pytest.approx(3 / 4)


def test_speed_bins():
  # A 10x10 target moves 0, 2, 5, 15 px, is away for a frame (no speed there nor in the next), then rests.
  x = [50, 50, 52, 57, 72, None, 90, 90]
  s = sequence([[0] * 4 if v is None else [v, 30, 10, 10] for v in x])
  groups = analysis.by_speed([s], {"t": {"s": np.ones(8)}}, {"t": {"s": np.zeros(8)}})
  assert [(g.name, g.frames) for g in groups] == [
      ("< 0.1 sizes/frame", 2), ("0.1-0.3 sizes/frame", 1), ("0.3-1 sizes/frame", 1), ("> 1 sizes/frame", 1)]


def test_attributes_take_the_protocols_score():
  sequences = [sequence([[5, 5, 4, 4]] * 3, "a", ("TS", "OV")), sequence([[5, 5, 4, 4]] * 3, "b", ("TS",))]
  groups = analysis.by_attribute(sequences, {"t": np.array([0.2, 0.6])}, {"t": np.array([0.5, 1])}, np.ones(2))
  assert [(g.name, g.sequences, g.frames) for g in groups] == [("OV", 1, 3), ("TS", 2, 6)]
  assert groups[0].auc["t"].value == 0.2 and groups[1].auc["t"].value == pytest.approx(0.4)
  assert groups[0].precision["t"].value == 0.5 and groups[1].precision["t"].value == pytest.approx(0.75)


def test_presence_roc():
  s = sequence([[5, 5, 4, 4]] * 5 + [[0] * 4] * 3)
  box = [5.0, 5, 4, 4]
  scores = [1, 0.9, 0.8, 0.3, 0.7, 0.4, 0.3, 0.1]
  found = analysis.presence([s], {"s": Result([box] * 6 + [NAN] * 2, score=scores)})
  # Of the 4 x 3 (visible, absent) pairs after the first frame: ten in the right order, one tied, one wrong.
  assert found.auc == pytest.approx((10 + 0.5) / 12)
  assert found.point == (1 / 3, 1.0)
  assert found.false_alarms[0] == found.detections[0] == 0 and found.false_alarms[-1] == found.detections[-1] == 1
  assert (np.diff(found.false_alarms) >= 0).all() and (np.diff(found.detections) >= 0).all()


def test_reliability():
  s = sequence([[5, 5, 4, 4]] * 5 + [[0] * 4] * 3)
  box = [5.0, 5, 4, 4]
  scores = [0.5, 1, 0.92, 0.85, 0.31, 0.33, 0.35, 0.04]  # The first one does not count.
  found = analysis.presence([s], {"s": Result([box] * 8, score=scores)})
  # Tenths of the scale: 0.0, 0.3 (one of three frames shows the target), 0.8, 0.9 (with 1).
  np.testing.assert_allclose(found.reliability, [[0.04, 0, 1], [0.33, 1 / 3, 3], [0.85, 1, 1], [0.96, 1, 2]])
  assert found.calibration_error == pytest.approx((0.04 + 3 * (1 / 3 - 0.33) + 0.15 + 2 * 0.04) / 7)
  logits = analysis.presence([s], {"s": Result([box] * 8, score=[x * 5 for x in scores])})
  assert not len(logits.reliability) and np.isnan(logits.calibration_error) and logits.auc == found.auc


def test_presence_without_scores_or_without_absence():
  s = sequence([[5, 5, 4, 4]] * 2 + [[0] * 4])
  found = analysis.presence([s], {"s": Result([[5, 5, 4, 4], NAN, NAN])})
  assert not len(found.false_alarms) and np.isnan(found.auc) and found.point == (0, 0)
  assert analysis.presence([sequence([[5, 5, 4, 4]] * 2)], {"s": Result([[5, 5, 4, 4]] * 2)}) is None


def test_a_comparison_holds_together():
  random = np.random.default_rng(0)
  sequences, runs = [], {"good": {}, "bad": {}}
  for i in range(6):
    truth = np.concatenate([random.uniform(20, 200, (40, 2)), random.uniform(5, 30, (40, 2))], axis=1)
    truth[20:23] = 0
    sequences.append(sequence(truth, f"s{i}", ("TS",) if i % 2 else ()))
    for name, noise in (("good", 1), ("bad", 30)):
      runs[name][f"s{i}"] = Result(truth + random.normal(0, noise, truth.shape), score=random.uniform(0, 1, 40))
  found = comparison.compare("antiuav410", sequences, {name: [run] for name, run in runs.items()})
  assert found.trackers == ("good", "bad") and found.main == "sa"
  assert found.estimates["good"]["sa"].value == found.scores["good"].metrics["overall"]["sa"]
  assert found.estimates["good"]["sa"].low <= found.estimates["good"]["sa"].value <= found.estimates["good"]["sa"].high
  gap = found.differences["good", "bad"]
  assert gap.value == pytest.approx(found.estimates["good"]["sa"].value - found.estimates["bad"]["sa"].value)
  assert gap.low > 0 and gap.p == pytest.approx(2 / 2**6)  # All six better: the two most extreme of 64 flips.
  assert set(found.groups) == {"attribute", "target size", "target speed"} and set(found.presence) == {"good", "bad"}
  assert found.groups["attribute"][0].auc["good"].value == pytest.approx(
      np.mean([found.scores["good"].metrics["sequences"][f"s{i}"]["success_auc"] for i in (1, 3, 5)]))
  assert found.recovery["good"] == analysis.Recovery(6, (1, 1, 1), found.recovery["good"].lost_for_good)
  assert found.recovery["bad"].lost_for_good.value == np.mean([f.lost_at_end for f in found.failures["bad"].values()])
  assert [g.frames for g in found.groups["target size"]] == [
      sum(int(((s.boxes[1:, 2] * s.boxes[1:, 3] >= low**2) & (s.boxes[1:, 2] * s.boxes[1:, 3] < high**2)
               & s.visible[1:]).sum()) for s in sequences) for low, high in ((0, 8), (8, 16), (16, 32))]
  assert all(f.losses for f in found.failures["bad"].values()) and not any(
      f.losses for f in found.failures["good"].values())
