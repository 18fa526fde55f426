"""Statistics of boxes against ones counted by hand."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from input_pipeline.datasets import statistics
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _sequence(rows, frames=None, attributes=()):
  """From xywh rows, None where absent."""
  boxes = np.array([row or (0, 0, 0, 0) for row in rows], np.float32)
  return Sequence("s", frames, boxes, (boxes[:, 2:] > 0).all(axis=1), attributes)


def _value(values, start):
  return next(row for name, row in values.items() if name.startswith(start))


def test_by_hand():
  # Size 10 (20x5) at first, then 20 (40x10) about the same centre, then 12 px to the right; absent twice; back 25 px to
  # the right of where it was: beyond half of a 2.5x window of size 20, so inside all far windows; absent at the end.
  one = _sequence([(100, 100, 20, 5), (90, 97.5, 40, 10), (102, 97.5, 40, 10), None, None, (127, 97.5, 40, 10), None])
  values = statistics.measure([one])
  assert _value(values, "absent")[0] == pytest.approx(100 * 3 / 7)
  assert _value(values, "sqrt(wh)")[3] == pytest.approx(20) and _value(values, "sqrt(wh)")[6] == pytest.approx(20)
  assert _value(values, "w/h") == pytest.approx((4, 4, 4))
  # Two neighbouring pairs: 0 and 12 px, 0 and 12/20 of the size.
  assert _value(values, "centre motion")[0] == pytest.approx(6)
  assert _value(values, "motion / sqrt(wh)")[0] == pytest.approx(0.3)
  assert _value(values, "max/min size") == pytest.approx((2, 2))
  assert _value(values, "absence gaps") == pytest.approx((200,))
  assert _value(values, "length of a gap")[0] == pytest.approx(1.5)
  assert _value(values, "centre leaves") == (0, 0, 0, 0)
  assert _value(values, "reappears") == (0, 0, 0)
  assert np.isnan(_value(values, "sequences with")).all()


@pytest.mark.parametrize(("distance", "near", "far"), [
    (19.9, (0, 0, 0, 0), (0, 0, 0)),
    (20.1, (100, 0, 0, 0), (100, 0, 0)),
    (29.9, (100, 100, 0, 0), (100, 0, 0)),
    (30.1, (100, 100, 100, 0), (100, 100, 0)),
    (40.1, (100, 100, 100, 100), (100, 100, 100)),
])
def test_windows_are_squares_about_the_earlier_centre(distance, near, far):
  start, stop = (200, 200, 10, 10), (200 - distance, 200 + distance / 2, 10, 10)
  values = statistics.measure([_sequence([start, stop])])
  assert _value(values, "centre leaves") == pytest.approx(near)
  values = statistics.measure([_sequence([start, None, stop])])
  assert _value(values, "reappears") == pytest.approx(far)
  assert np.isnan(_value(values, "centre leaves")).all()


def test_gap_at_the_start_has_no_reappearance():
  values = statistics.measure([_sequence([None, (0, 0, 5, 5)]), _sequence([(0, 0, 5, 5)] * 2)])
  assert _value(values, "absence gaps") == (50,)
  assert np.isnan(_value(values, "reappears")).all()


def test_attributes_are_shares_of_the_sequences_that_have_any():
  box = [(0, 0, 5, 5)]
  values = statistics.measure([_sequence(box, attributes=("TC", "SS")), _sequence(box, attributes=("SS",)),
                               _sequence(box)])
  row = _value(values, "sequences with")
  assert row[statistics.ATTRIBUTES.index("TC")] == 50 and row[statistics.ATTRIBUTES.index("SS")] == 100
  assert row[statistics.ATTRIBUTES.index("OV")] == 0


def test_nothing_visible_is_no_error():
  values = statistics.measure([_sequence([None, None])])
  assert _value(values, "absent") == (100,)
  assert all(len(row) == len(statistics.REFERENCE[name]) for name, row in values.items())
  assert "| - |" in "\n".join(statistics.table(values))


def test_contrast_is_the_ratio_that_was_painted():
  rng = np.random.default_rng(0)
  frames = (100 + 5 * rng.standard_normal((3, 120, 160))).round()
  frames[:, 40:60, 50:80] += 30
  sequence = _sequence([(50, 40, 30, 20)] * 3, ArrayFrames(frames.astype(np.uint8)))
  assert statistics.measure_contrast([sequence]) == pytest.approx((6,) * 5, rel=0.1)


def test_script_prints_both_columns(tmp_path):
  folder = tmp_path / "one"
  folder.mkdir()
  (folder / "IR_label.json").write_text('{"exist": [1, 0, 1], "gt_rect": [[1, 2, 9, 4], [], [3, 2, 9, 4]]}')
  done = subprocess.run([sys.executable, str(ROOT / "scripts/data_statistics.py"), "--format=antiuav",
                         f"--root={tmp_path}"], capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 0, done.stderr
  assert "1 sequences, 3 frames" in done.stdout
  assert "| absent % | 33.3 | 2.05 |" in done.stdout
