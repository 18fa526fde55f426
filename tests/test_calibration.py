"""Calibrated presence, and settings of a tracker from the command line."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from spots import SIDE, Spots, scene

from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import Sequence
from siamdff_jax.experiments import calibration
from siamdff_jax.experiments.calibration import AS_TRAINED, Calibration, Pairs
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker


def drawn(count, calibration, seed=0):
  """Logits and ratios, and whether the target is there with the probability that a calibration gives."""
  rng = np.random.default_rng(seed)
  logit, ratio = rng.normal(1, 3, count), rng.uniform(0, 4, count)
  presence = 1 / (1 + np.exp(-(calibration.scale * logit + calibration.ratio * ratio + calibration.bias)))
  return Pairs(logit, ratio, rng.random(count) < presence)


def test_the_line_is_found_again():
  pairs = drawn(40_000, Calibration(0.6, 0.9, -2.0))
  # Both kinds count alike here: another share of targets only moves the bias, by the logarithm of the odds.
  odds = np.log(pairs.visible.sum() / (~pairs.visible).sum())
  np.testing.assert_allclose(calibration.fit(pairs), [0.6, 0.9, -2.0 - odds], atol=0.06)


def test_fit_is_the_minimum():
  """Against a minimiser that knows nothing of derivatives; few windows, very unlike in number."""
  pairs = drawn(60, Calibration(2.0, 1.0, -6.0), seed=1)
  features = np.stack([pairs.logit, pairs.ratio, np.ones(60)], 1)
  positive, negative = features[pairs.visible], features[~pairs.visible]
  high, low = (len(positive) + 1) / (len(positive) + 2), 1 / (len(negative) + 2)

  def loss(line):
    of_kinds = [(np.logaddexp(0, x @ line) - y * (x @ line)).mean() for x, y in ((positive, high), (negative, low))]
    return sum(of_kinds)

  best = minimize(loss, [1.0, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x
  np.testing.assert_allclose(calibration.fit(pairs), best, rtol=1e-3)


def test_what_separates_stays_finite():
  pairs = Pairs(np.array([5.0, 6.0, -5.0, -6.0] * 20), np.array([1.0, 2.0] * 40), np.array([1, 1, 0, 0] * 20, bool))
  assert 0 < calibration.fit(pairs).scale < 2 and np.abs(calibration.fit(pairs)).max() < 10


def test_both_kinds_of_windows_are_needed():
  with pytest.raises(UserError, match="3 windows with and 0 without the target"):
    calibration.fit(Pairs(np.zeros(3), np.zeros(3), np.ones(3, bool)))


def test_reliability_by_hand():
  """Two of three windows with the target at 0.9, the third and the only one without at 0.25."""
  pairs = Pairs(np.zeros(4), np.zeros(4), np.array([1, 1, 1, 0], bool))
  table, error = calibration.reliability(np.array([0.9, 0.9, 0.25, 0.25]), pairs)
  # Weights 1/6 each with the target, 1/2 without: at 0.25 a quarter shows it.
  np.testing.assert_allclose(table, [[0.25, 0.25, 2 / 3], [0.9, 1.0, 1 / 3]])
  np.testing.assert_allclose(error, 0.1 / 3)


def test_calibrated_logits_are_reliable():
  pairs = drawn(40_000, Calibration(0.4, 0.5, 0.0))
  errors = [calibration.reliability(calibration.probability(pairs, line), pairs)[1]
            for line in (AS_TRAINED, calibration.fit(pairs))]
  assert errors[0] > 0.1 and errors[1] < 0.015


def sequence(places, name="s"):
  boxes = np.array([[*spots[0], SIDE, SIDE] if spots else [0] * 4 for spots in places], np.float32)
  return Sequence(name, ArrayFrames(scene(places)), boxes, boxes[:, 2] > 0, ())


def test_windows_with_and_without_the_target():
  """One with the target in each frame that shows it, one without in every frame: about the brightest of the rest."""
  places = [[(60, 60)]] * 3 + [[]] * 2 + [[(60, 60), (180, 120, 200)]]
  pairs = calibration.collect(Tracker(Spots(), PLAIN.replace(tiles=8)), {}, [sequence(places)])
  assert len(pairs.logit) == 2 + 2 + 4 + 2  # Absent frames give their window too.
  np.testing.assert_array_equal(pairs.visible, [1, 0, 1, 0, 0, 0, 0, 0, 1, 0])
  white, grey, dark = (20 * (level / 255 - 0.6) for level in (255, 200, 90))
  np.testing.assert_allclose(pairs.logit, [white, dark, white, dark, dark, dark, dark, dark, white, grey], atol=0.6)
  assert pairs.ratio[pairs.visible].min() > 2 > 0.5 > pairs.ratio[[1, 3, 4, 5, 6, 7]].max()  # Noise has no clear peak.


def test_an_absent_first_frame_is_refused():
  with pytest.raises(UserError, match="late: the target is absent in the first frame"):
    calibration.collect(Tracker(Spots(), PLAIN.replace(tiles=8)), {}, [sequence([[], [(60, 60)]], "late")])


def test_calibrate_writes_numbers_and_plots(tmp_path, monkeypatch):
  sequences = [sequence([[(60 + 3 * t, 60)] for t in range(4)])]
  monkeypatch.setattr(datasets, "load_readable", lambda *_, **__: (sequences, {}))
  monkeypatch.setattr(calibration, "load_tracker", lambda _: (Tracker(Spots(), PLAIN), {}))
  found = calibration.calibrate("c", "antiuav", "r", str(tmp_path))
  written = json.loads((tmp_path / "calibration.json").read_text())
  for name, value in found._asdict().items():
    np.testing.assert_allclose(written[f"presence_{name}"], value, atol=1e-4)
  assert (written["windows"], written["with_target"]) == (6, 3)
  assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
  assert "https://" not in (tmp_path / "reliability.html").read_text().split("<body>")[0].split("<script")[0]


class CutOff(ArrayFrames):
  """Frames of which the third cannot be read."""

  def __iter__(self):
    yield from list(super().__iter__())[:2]
    raise UserError("cut/2.png: not a readable image")


def test_frames_that_cannot_be_read_leave_their_sequence_out(tmp_path, monkeypatch, caplog, capsys):
  good = sequence([[(60 + 3 * t, 60)] for t in range(4)], "good")
  cut = Sequence("cut", CutOff(scene([[(60, 60)]] * 4)), good.boxes, good.visible, ())
  tracker = Tracker(Spots(), PLAIN.replace(tiles=8))
  whole = calibration.collect(tracker, {}, [good])
  with pytest.raises(UserError, match="cut/2.png"):
    calibration.collect(tracker, {}, [cut, good])
  monkeypatch.setattr(datasets, "load_readable", lambda *_, **__: ([cut, good], {"late": UserError("late: no labels")}))
  monkeypatch.setattr(calibration, "load_tracker", lambda _: (Tracker(Spots(), PLAIN), {}))
  with pytest.raises(UserError, match="2 of 3 sequences were left out, the scores are of the other 1: cut, late are"):
    calibration.calibrate("c", "antiuav", "r", str(tmp_path))
  written = json.loads((tmp_path / "calibration.json").read_text())
  assert written["windows"] == len(whole.logit) and sorted(written["left_out"]) == ["cut", "late"]
  assert "left out: late: no labels" in caplog.text and "left out: cut/2.png: not a readable image" in caplog.text
