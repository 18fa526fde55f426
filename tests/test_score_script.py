"""scripts/score.py as a user runs it: labels and result files, no images."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BOX = [10, 20, 8, 4]


def run(**flags):
  command = [sys.executable, str(ROOT / "scripts" / "score.py"), *(f"--{key}={value}" for key, value in flags.items())]
  environment = {**os.environ, "OMP_NUM_THREADS": "1"}
  return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.fixture
def data(tmp_path):
  """Two Anti-UAV sequences without video and results for them, one as JSON, one as text."""
  for name, exist in (("a", [1, 1, 0]), ("b", [1, 1])):
    (tmp_path / "labels" / name).mkdir(parents=True)
    boxes = [BOX if there else [] for there in exist]
    (tmp_path / "labels" / name / "infrared.json").write_text(json.dumps({"exist": exist, "gt_rect": boxes}))
  (tmp_path / "results").mkdir()
  (tmp_path / "results" / "a.json").write_text(json.dumps({"res": [BOX, [14, 20, 8, 4], []]}))
  (tmp_path / "results" / "b.txt").write_text("10,20,8,4\n10,20,8,4\n")
  return tmp_path


def test_scores_and_table(data, monkeypatch):
  """Without JAX: whoever only scores need not wait for it."""
  (data / "modules").mkdir()
  (data / "modules" / "jax.py").write_text("raise RuntimeError('JAX is imported')\n")
  monkeypatch.setenv("PYTHONPATH", str(data / "modules"))
  out = data / "metrics.json"
  done = run(protocol="challenge", format="antiuav", root=data / "labels", results=data / "results", out=out)
  assert done.returncode == 0, done.stderr
  metrics = json.loads(out.read_text())
  a, b = (1 + 1 / 3 + 1) / 3, 1
  assert metrics["protocol"] == "challenge" and list(metrics["sequences"]) == ["a", "b"]
  assert metrics["sequences"]["a"]["sa"] == pytest.approx(a)
  assert metrics["overall"]["challenge_accuracy"] == pytest.approx((a + b) / 2)
  rows = [line.strip("| ").split("|")[0].strip() for line in done.stdout.splitlines() if line.startswith("|")]
  assert rows[0] == "sequence" and rows[2:5] == ["a", "b", "OVERALL"]
  assert metrics["recovery"]["returns"] == 0 and [part["frames"] for part in metrics["target_size"]] == [2]
  assert f"challenge_accuracy {(a + b) / 2:.4f}" in done.stdout


def test_errors_are_one_sentence(data):
  flags = {"protocol": "antiuav", "format": "antiuav", "root": data / "labels", "results": data / "results"}
  (data / "results" / "b.txt").write_text("10,20,8,4\n10,20,8\n")
  cases = [(flags, "b.txt: line 2"), ({**flags, "root": data / "none"}, "none"),
           ({**flags, "out": data / "none" / "m.json"}, None)]
  for given, message in cases:
    done = run(**given)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("error: ")
    assert message is None or message in done.stderr
  assert run(**{**flags, "protocol": "nonsense"}).returncode != 0


def test_help_explains():
  done = run(help="true")
  assert "--protocol: <antiuav|antiuav410|challenge|got10k|lasot|otb|plain|vot>" in done.stdout.replace("\n    ", "")


def test_published_files_give_the_published_scores(data_root, tmp_path):
  folder = data_root / "conformance"
  published = json.loads((folder / "UAV123_20L_published.json").read_text())
  (tmp_path / "results").mkdir()
  with np.load(folder / "UAV123_20L.npz") as file:
    for key in (key for key in file if key.endswith("/gt")):
      name = key.split("/")[0]
      (tmp_path / "labels" / name).mkdir(parents=True)
      np.savetxt(tmp_path / "labels" / name / "groundtruth_rect.txt", file[key], fmt="%g", delimiter=",")
      np.savetxt(tmp_path / "results" / f"{name}.txt", file[f"{name}/BACF"], fmt="%.6f", delimiter="\t")
  out = tmp_path / "metrics.json"
  done = run(protocol="otb", format="otb", root=tmp_path / "labels", results=tmp_path / "results", out=out)
  assert done.returncode == 0, done.stderr
  overall = json.loads(out.read_text())["overall"]
  for metric in ("success_auc", "precision_20"):
    assert overall[metric] == pytest.approx(published[metric]["BACF"], abs=0.0005)
