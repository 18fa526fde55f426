"""scripts/evaluate.py: trackers over data to a report; interrupted, shared between processes, run in other ways."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import cv2
import evaluating
import numpy as np
import pytest

import media_files
import small
from input_pipeline.errors import UserError
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.evaluation import compare, trackers
from siamdff_jax.experiments import calibration
from siamdff_jax.results import Result
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.tracking.streams import BrokenStreams

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
  """The result files of all trackers, without what is being written, or was when the process was killed."""
  paths = sorted(pathlib.Path(folder).rglob("results/*.json"))
  return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_names_that_are_no_text(tmp_path, capsys):
  frames, boxes = media_files.recording(6)
  folder = tmp_path / os.fsdecode(b"dr\xf6hne")
  media_files.images(folder, frames, ".jpg")
  np.savetxt(folder / "groundtruth.txt", boxes, delimiter=",")
  evaluating.run([], ["KCF"], "plain", str(tmp_path), str(tmp_path / "out"), videos=1)
  assert r"dr\udcf6hne" in (tmp_path / "out" / "report.html").read_text()
  assert os.fsdecode(b"dr\xf6hne.mp4") in os.listdir(tmp_path / "out" / "KCF" / "videos")


def test_trackers_are_run_scored_and_compared_and_not_run_again(data, checkpoint, tmp_path, capsys, monkeypatch):
  arguments = ([f"tiny={checkpoint}"], ["opencv"], "antiuav410", data, str(tmp_path))
  evaluating.run(*arguments, clips=1, videos=1)
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
  evaluating.run(*arguments)
  assert files(tmp_path) == before
  with pytest.raises(UserError, match=r"run.json: the results there are of another tracker \(.*--redo"):
    evaluating.run(["tiny=svanstrom"], [], "antiuav410", data, str(tmp_path))


def test_reset_based_runs_are_scored_by_vot(data, checkpoint, tmp_path, capsys):
  evaluating.run([checkpoint], ["KCF"], "antiuav410", data, str(tmp_path), run="reset")
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
  with pytest.raises(UserError, match=message):
    evaluating.run(checkpoints, baselines, "antiuav410", data, str(tmp_path))


class Keeps:
  """A tracker that keeps its first box; streams with frames that cannot be read break, as `RunsStreams` has it."""

  frames_tracked, seconds, tracked = 1, 1.0, []

  def run(self, streams):
    errors = {}
    for stream in streams:
      try:
        Keeps.tracked.append(stream.name)
        yield stream.name, Result([stream.box for _ in stream.frames])
      except UserError as error:
        errors[stream.name] = error
    if errors:
      raise BrokenStreams(errors, {})


@pytest.fixture
def troubled(tmp_path, monkeypatch):
  """Sequences in the plain form, one broken in each way; the trackers are `Keeps`."""
  names = ("good", "fine", "border", "absent", "outside", "cut", "unlabelled", "labels", "count")
  for name in names:
    (tmp_path / "data" / name).mkdir(parents=True)
    for t in range(4):
      frame = np.full((48, 64), 90 + t, np.uint8)
      cv2.imwrite(str(tmp_path / "data" / name / f"{t}.{'jpg' if name == 'cut' else 'bmp'}"), frame)
    first = {"absent": "0,0,0,0", "outside": "70,9,8,6", "border": "-7,9,8,6"}.get(name, "9,9,8,6")
    (tmp_path / "data" / name / "groundtruth.txt").write_text(f"{first}\n" + "10,9,8,6\n" * 3)
  cut = tmp_path / "data" / "cut" / "2.jpg"
  cut.write_bytes(cut.read_bytes()[:200])
  (tmp_path / "data" / "unlabelled" / "groundtruth.txt").rename(tmp_path / "data" / "unlabelled" / "gt.txt")
  (tmp_path / "data" / "labels" / "groundtruth.txt").write_text("a,b\n")
  (tmp_path / "data" / "count" / "groundtruth.txt").write_text("9,9,8,6\n")
  monkeypatch.setattr(trackers, "runner", lambda source, *_: (Keeps(), source))
  Keeps.tracked = []
  return tmp_path


def test_broken_sequences_are_named_and_the_others_are_evaluated(troubled, capsys, caplog):
  left_out = ["absent", "count", "cut", "labels", "outside", "unlabelled"]
  with pytest.raises(UserError, match="6 of 9 sequences were left out, the scores are of the other 3: absent, count, "
                     "cut, labels, outside, unlabelled are missing"):
    evaluating.run(["a=x", "b=y"], [], "plain", str(troubled / "data"), str(troubled / "out"), clips=1)
  printed = capsys.readouterr().out
  assert "| a " in printed and "6 of 9 sequences were left out, the scores are of the other 3" in printed
  assert sorted(Keeps.tracked) == sorted([*["border", "fine", "good"] * 2, "cut"])  # What broke is not tried again.
  said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("left out")]
  sentences = {"absent": "absent: the target is absent in the first frame", "count": "1 boxes for 4 frames",
               "cut": "cut/2.jpg: not a readable image", "labels": "labels/groundtruth.txt: line 1",
               "outside": "outside/groundtruth.txt: frame 0 has the box",
               "unlabelled": "unlabelled: no labels, .*gt.txt is not read"}
  assert len(said) == len(left_out)
  for sentence in sentences.values():
    assert sum(bool(re.search(sentence, line)) for line in said) == 1
  page = " ".join((troubled / "out" / "report.html").read_text().split())
  assert "6 of 9 sequences were left out" in page and "<dd>3 of 9</dd>" in page
  for name in left_out:
    assert f"<b>{name}</b>: " in page
  metrics = json.loads((troubled / "out" / "b" / "metrics.json").read_text())
  assert sorted(metrics["sequences"]) == ["border", "fine", "good"] and sorted(metrics["left_out"]) == left_out


def test_real_trackers_go_on_past_broken_sequences_too(troubled, monkeypatch, checkpoint, caplog):
  """The box at the border has its centre outside of the frame; the damaged frame is in the middle."""
  monkeypatch.undo()
  with pytest.raises(UserError, match="1 of 3 sequences were left out, .*: cut is missing"):
    for name in ("absent", "count", "fine", "labels", "outside", "unlabelled"):
      shutil.rmtree(troubled / "data" / name)
    evaluating.run([f"tiny={checkpoint}"], ["KCF"], "plain", str(troubled / "data"), str(troubled / "out"))
  assert caplog.text.count("cut/2.jpg: not a readable image") == 1
  assert [*files(troubled / "out")] == [f"{tracker}/results/{name}.json" for tracker in ("KCF", "tiny")
                                        for name in ("border", "good")]


def test_what_is_mended_or_replaced_later_is_evaluated_then(troubled, capsys):
  arguments = (["a=x"], [], "plain", str(troubled / "data"), str(troubled / "out"))
  with pytest.raises(UserError, match="6 of 9 sequences were left out"):
    evaluating.run(*arguments)
  with pytest.raises(UserError, match="6 of 9 sequences were left out"):  # And again, by the same command.
    evaluating.run(*arguments)
  for name in ("absent", "count", "labels", "outside", "unlabelled", "cut"):
    (troubled / "data" / name / "groundtruth.txt").write_text("9,9,8,6\n" + "10,9,8,6\n" * 3)
  cv2.imwrite(str(troubled / "data" / "cut" / "2.jpg"), np.full((48, 64), 92, np.uint8))
  capsys.readouterr()
  evaluating.run(*arguments)
  assert "left out" not in capsys.readouterr().out
  assert "left out" not in (troubled / "out" / "report.html").read_text()
  cv2.imwrite(str(troubled / "data" / "good" / "2.bmp"), np.full((48, 64), 5, np.uint8))
  with pytest.raises(UserError, match="a/results/good.json: was made of other frames than good has now"):
    evaluating.run(*arguments)
  Keeps.tracked = []
  evaluating.run(*arguments, redo=True)
  assert Keeps.tracked == ["good"]


def test_one_sequence_that_is_broken_is_simply_an_error(troubled):
  for only, message in (("cut", "cut/2.jpg: not a readable image"), ("absent", "absent: the target is absent in the"),
                        ("un", "none of the 2 sequences can be evaluated")):  # count, unlabelled
    with pytest.raises(UserError, match=message):
      evaluating.run(["a=x"], [], "plain", str(troubled / "data"), str(troubled / "out"), only=only)
  assert not (troubled / "out" / "report.html").exists()


def test_baselines_are_told_apart_by_opencv_s_version(monkeypatch):
  before = trackers.runner("KCF")[1]
  monkeypatch.setattr(cv2, "__version__", "3.0")
  assert trackers.runner("KCF")[1] != before


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


@pytest.mark.parametrize("command", [
    lambda out: calibration.calibrate("lite", "antiuav", "nowhere", out),
    lambda out: compare.compare("antiuav", "nowhere", "antiuav", ["a=nowhere"], out)], ids=["calibrate", "compare"])
def test_a_folder_that_cannot_be_written_is_found_first(command, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file/out: cannot be written"):
    command(str(tmp_path / "file" / "out"))
