"""Comparing trackers by their result files."""

import json

import numpy as np
import pytest

from dataset_files import write_json
from input_pipeline.errors import DataError
from siamdff_jax.evaluation import results
from siamdff_jax.evaluation.compare import compare

BOXES = [[10.0 + t, 20.0, 8.0, 6.0] for t in range(5)]


@pytest.fixture
def root(tmp_path):
  """Labels of two sequences, without images."""
  for name in ("a", "b"):
    write_json(tmp_path / "data" / name / "IR_label.json", BOXES)
  for tracker, shift in (("perfect", 0.0), ("off", 4.0)):
    for name in ("a", "b"):
      (tmp_path / tracker / "results").mkdir(parents=True, exist_ok=True)
      boxes = np.array(BOXES) + [shift, 0, 0, 0]
      results.write(tmp_path / tracker / "results" / f"{name}.json", results.Result(boxes))
  return tmp_path


def test_rows_keep_the_order_given_and_files_are_written(root):
  out = root / "out"
  table = compare("antiuav410", str(root / "data"), "antiuav410",
                  [f"off={root / 'off'}", f"perfect={root / 'perfect'}"], str(out))
  rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
  assert rows == ["off", "perfect"]
  assert (out / "comparison.md").read_text() == table + "\n"
  assert (out / "curves.png").stat().st_size > 10_000
  scores = {name: json.loads((out / f"{name}.json").read_text())["overall"] for name in rows}
  assert scores["perfect"]["sa"] == pytest.approx(1.0)
  # Half a width off: IoU 4*6 / (2*8*6 - 4*6) = 1/3 in every frame, also in the first, which SA does not replace.
  assert scores["off"]["sa"] == pytest.approx(1 / 3, abs=1e-6)
  assert scores["off"]["precision_5"] == 1.0


@pytest.mark.parametrize("entries", [["perfect"], ["=x"], ["a=x/perfect", "a=x/perfect"]])
def test_entries_of_another_form_are_refused(root, entries):
  entries = [entry.replace("x/", f"{root}/") for entry in entries]
  with pytest.raises(DataError, match="expected NAME=FOLDER"):
    compare("antiuav410", str(root / "data"), "antiuav410", entries, str(root / "out"))
