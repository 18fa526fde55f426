"""Comparing trackers by their result files, as scripts/compare.py does it."""

import csv
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dataset_files import write_images, write_json
from input_pipeline.errors import UserError
from siamdff_jax import results
from siamdff_jax.evaluation.compare import compare

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOXES = [[10.0 + t, 20.0, 8.0, 6.0] for t in range(5)]


@pytest.fixture
def root(tmp_path):
  """Labels of two sequences, without images; results of two trackers."""
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
  rows = [line.split("|")[1].strip() for line in table.splitlines() if line]
  assert rows == ["tracker", "-------", "off", "perfect", "tracker", "-------", "off", "perfect", "AUC / P@5 by size",
                  "-----------------", "frames", "off", "perfect"]
  assert (out / "comparison.md").read_text() == table + "\n"
  assert (out / "curves.png").stat().st_size > 10_000 and (out / "report.html").stat().st_size > 10_000
  with open(out / "scores.csv", newline="") as file:
    scores = {(row["tracker"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
  assert scores["perfect", "sa"] == pytest.approx(1.0)
  # Half a width off: IoU 4*6 / (2*8*6 - 4*6) = 1/3 in every frame, also in the first, which SA does not replace.
  assert scores["off", "sa"] == pytest.approx(1 / 3, abs=1e-6)
  assert scores["off", "precision_5"] == 1.0


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # Of the one without any spread.
def test_further_folders_of_a_name_are_further_runs(root):
  """SA of 1 and 1/3 against 1 and 1: one degree of freedom, whose quantile is 12.71."""
  shutil.copytree(root / "perfect", root / "again")
  text = compare("antiuav410", str(root / "data"), "antiuav410",
                 [f"mixed={root / 'perfect'}", f"mixed={root / 'off'}", f"same={root / 'perfect'}",
                  f"same={root / 'again'}"], str(root / "out"))
  row = [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]
  assert row[:2] == ["mixed", "same"] and row[2].split()[0] == "-0.333" and row[-1] == "2, 2"
  half = 12.7062 * np.sqrt(np.var([1, 1 / 3], ddof=1) / 2)
  assert [float(x) for x in row[3].split(" to ")] == pytest.approx([-1 / 3 - half, -1 / 3 + half], abs=1e-3)
  page = (root / "out" / "report.html").read_text()
  assert "95 % over runs" in page and f"<td>{1 / 3 - half:+.3f} to".replace("-", "−") in page


def test_clips_are_made_where_there_are_frames(root, caplog):
  entries = [f"off={root / 'off'}"]
  compare("antiuav410", str(root / "data"), "antiuav410", entries, str(root / "bare"))
  assert "no clips in the report" in caplog.text
  for name in ("a", "b"):
    write_images(root / "data" / name, count=5)
  compare("antiuav410", str(root / "data"), "antiuav410", entries, str(root / "out"), clips=1)
  assert "video/mp4" not in (root / "bare" / "report.html").read_text()
  assert (root / "out" / "report.html").read_text().count("data:video/mp4") == 1


@pytest.mark.parametrize("entries", [["perfect"], ["=x"], ["a=x/perfect", "a=x/perfect"], ["a/b=x/perfect"]])
def test_entries_of_another_form_are_refused(root, entries):
  entries = [entry.replace("x/", f"{root}/") for entry in entries]
  with pytest.raises(UserError, match="expected NAME=FOLDER"):
    compare("antiuav410", str(root / "data"), "antiuav410", entries, str(root / "out"))


def test_the_command_takes_trackers_one_after_the_other(root):
  command = [sys.executable, str(ROOT / "scripts" / "compare.py"), "--format", "antiuav410", "--root", root / "data",
             "--results", f"perfect={root / 'perfect'}", f"off={root / 'off'}", "--protocol", "antiuav410", "--out",
             root / "out"]
  done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
  assert done.returncode == 0, done.stderr
  assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:4]] == ["perfect", "off"]
  assert (root / "out" / "report.html").is_file()


def test_corners_are_read_when_asked_for(root):
  folder = root / "corners"
  folder.mkdir()
  corners = np.array(BOXES) + [[0, 0, *box[:2]] for box in BOXES]
  for name in ("a", "b"):
    np.savetxt(folder / f"{name}.txt", corners, delimiter=",")
  table = compare("antiuav410", str(root / "data"), "antiuav410", [f"t={folder}"], str(root / "out"), box_form="xyxy")
  assert json.loads(table.splitlines()[2].split("|")[6]) == 1.0
  with pytest.raises(UserError, match=r"a.txt: its first box is the true one when read as x1,y1,x2,y2"):
    compare("antiuav410", str(root / "data"), "antiuav410", [f"t={folder}"], str(root / "out"))


def test_labels_that_cannot_be_read_leave_their_sequence_out(root, capsys, caplog):
  (root / "data" / "b" / "IR_label.json").write_text("{")
  with pytest.raises(UserError, match="1 of 2 sequences were left out, the scores are of the other 1: b is missing"):
    compare("antiuav410", str(root / "data"), "antiuav410", [f"off={root / 'off'}"], str(root / "out"))
  assert "1 of 2 sequences were left out" in capsys.readouterr().out
  assert "left out: " in caplog.text and "b/IR_label.json: not readable as JSON" in caplog.text
  assert "1 of 2 sequences were left out" in (root / "out" / "comparison.md").read_text()
