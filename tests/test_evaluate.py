"""scripts/evaluate.py: trackers over data to a report; interrupted, shared between processes, run in other ways."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

import small
from input_pipeline.errors import DataError
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.evaluation import evaluate
from siamdff_jax.tracking.runner import Runner

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_dataset(folder, 3, 12, seed=5, width=96, height=80)
  return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return small.write_checkpoint(tmp_path_factory.mktemp("tiny"), small.config(**small.PLAIN))


def files(folder) -> dict[str, bytes]:
  """The result files of all trackers."""
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(pathlib.Path(folder).rglob("results/*"))}


def test_trackers_are_run_scored_and_compared_and_not_run_again(data, checkpoint, tmp_path, capsys, monkeypatch):
  arguments = ([f"tiny={checkpoint}"], ["opencv"], "antiuav410", data, str(tmp_path))
  evaluate.evaluate(*arguments, clips=1, videos=1)
  rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
  assert rows[0] == "tracker" and rows[2:5] == ["tiny", "KCF", "CSRT"]
  for name in ("tiny", "KCF", "CSRT"):
    metrics = json.loads((tmp_path / name / "metrics.json").read_text())
    assert len(metrics["sequences"]) == len(metrics["recovery"]) == 3 and metrics["target_size"]
    assert metrics["fps"] > 0 and 0 <= metrics["overall"]["sa"] <= 1
    assert len(list((tmp_path / name / "videos").iterdir())) == 2
  assert "data:video/mp4" in (tmp_path / "report.html").read_text()
  before = files(tmp_path)
  assert len(before) == 9

  def refuses(self, streams):
    assert not list(streams)
    return iter(())

  monkeypatch.setattr(Runner, "run", refuses)
  evaluate.evaluate(*arguments, clips=0)
  assert files(tmp_path) == before
  with pytest.raises(DataError, match=r"run.json: the results there are of another tracker \(.*--redo"):
    evaluate.evaluate(["tiny=svanstrom"], [], "antiuav410", data, str(tmp_path))


def test_reset_based_runs_are_scored_by_vot(data, checkpoint, tmp_path, capsys):
  evaluate.evaluate([checkpoint], ["KCF"], "antiuav410", data, str(tmp_path), run="reset", clips=0)
  assert "| tracker" in capsys.readouterr().out
  name = os.path.basename(checkpoint)
  metrics = json.loads((tmp_path / name / "metrics.json").read_text())
  assert "recovery" not in metrics and set(metrics["overall"]) == {
      "accuracy", "failures", "failures_per_100"}


@pytest.mark.parametrize("checkpoints, baselines, message", [
    ([], [], "no tracker to evaluate"),
    ([], ["MOSSE"], "--baselines: 'MOSSE', expected opencv or some of KCF, CSRT"),
    (["a/x", "b/x"], [], "two trackers are called x, name them: --checkpoint NAME=b/x"),
    (["KCF"], ["KCF"], "two trackers are called KCF"),
    (["a/b=c"], [], "expected CHECKPOINT or NAME=CHECKPOINT"),
    (["=c"], [], "expected CHECKPOINT or NAME=CHECKPOINT"),
])
def test_trackers_need_names_of_their_own(data, tmp_path, checkpoints, baselines, message):
  with pytest.raises(DataError, match=message):
    evaluate.evaluate(checkpoints, baselines, "antiuav410", data, str(tmp_path))


def command(checkpoint, data, out, *options):
  return [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--checkpoint", f"tiny={checkpoint}", "--format",
          "antiuav410", "--root", data, "--out", str(out), "--clips", "0", *options]


@pytest.mark.slow
def test_a_killed_evaluation_and_a_shared_one_give_the_same_files(checkpoint, tmp_path):
  """About a minute: `./scripts/test.sh -m slow tests/test_evaluate.py`."""
  write_dataset(tmp_path / "data", 6, 200, seed=5, width=96, height=80)
  data, environment = str(tmp_path / "data"), os.environ | {"JAX_PLATFORMS": "cpu"}
  subprocess.run(command(checkpoint, data, tmp_path / "whole"), check=True, env=environment)
  killed = subprocess.Popen(command(checkpoint, data, tmp_path / "killed", "--streams=2"), env=environment)
  while killed.poll() is None and not files(tmp_path / "killed"):
    time.sleep(0.05)
  killed.send_signal(signal.SIGKILL)
  killed.wait()
  done = len(files(tmp_path / "killed"))
  assert 0 < done < 6
  subprocess.run(command(checkpoint, data, tmp_path / "killed", "--streams=2"), check=True, env=environment)
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  shared = [subprocess.Popen(command(checkpoint, data, tmp_path / "shared", f"--coordinator=localhost:{port}",
                                     "--num_processes=2", f"--process_id={i}"), env=environment) for i in range(2)]
  assert [process.wait(600) for process in shared] == [0, 0]
  whole = files(tmp_path / "whole")
  assert len(whole) == 6 and whole == files(tmp_path / "killed") == files(tmp_path / "shared")
