"""Bad input through the real commands: one clear sentence, a non-zero exit code, no traceback, nothing lost."""

import json
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

import small
from input_pipeline.simulator import simulate, write_sequence

pytestmark = pytest.mark.end_to_end

ROOT = pathlib.Path(__file__).resolve().parent.parent


def command(script, *arguments):
  return subprocess.run([sys.executable, ROOT / "scripts" / script, *map(str, arguments)], capture_output=True,
                        text=True, timeout=300, cwd=ROOT)


def assert_one_sentence(done, *expected):
  assert done.returncode != 0
  assert "Traceback" not in done.stderr
  sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(sentences) == 1, done.stderr
  for text in expected:
    assert text in sentences[0], sentences[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """One simulated sequence of 6 frames."""
  folder = tmp_path_factory.mktemp("data")
  write_sequence(simulate(5, 0, 6, 160, 128), folder)
  return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return small.write_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture
def broken(data, tmp_path):
  """A copy to break."""
  shutil.copytree(data, tmp_path / "data")
  return tmp_path / "data"


def evaluate(checkpoint, root, out):
  return command("evaluate.py", "--checkpoint", checkpoint, "--format", "antiuav410", "--root", root, "--out", out)


def test_every_script_is_a_command():
  """The documents call them by their names."""
  for script in (ROOT / "scripts").iterdir():
    if script.is_file() and script.read_bytes().startswith(b"#!"):
      assert script.stat().st_mode & 0o111, script.name


def test_a_box_outside_the_frame(data, checkpoint, tmp_path):
  done = command("track.py", "--checkpoint", checkpoint, "--input", data / "sim_000000", "--box", "900,20,10,10",
                 "--out", tmp_path / "out")
  assert_one_sentence(done, "sim_000000", "lies outside the frame of 160x128")
  assert not (tmp_path / "out").exists()


def test_a_box_that_is_no_box(data, checkpoint, tmp_path):
  done = command("track.py", "--checkpoint", checkpoint, "--input", data / "sim_000000", "--box", "1,2,three,4",
                 "--out", tmp_path / "out")
  assert_one_sentence(done, "--box=1,2,three,4", "x,y,w,h")


def test_labels_and_frames_differ_in_number(broken, checkpoint, tmp_path):
  (broken / "sim_000000" / "000006.jpg").unlink()
  assert_one_sentence(evaluate(checkpoint, broken, tmp_path / "out"), "IR_label.json", "6", "5")


def test_a_corrupt_jpeg_in_the_middle(broken, checkpoint, tmp_path):
  path = broken / "sim_000000" / "000004.jpg"
  path.write_bytes(path.read_bytes()[:200])
  assert_one_sentence(evaluate(checkpoint, broken, tmp_path / "out"), "000004.jpg", "truncated or corrupt")
  checked = command("check_data.py", "--format", "antiuav410", "--root", broken)
  assert checked.returncode != 0 and "000004.jpg" in checked.stdout


def test_an_empty_folder(checkpoint, tmp_path):
  (tmp_path / "empty").mkdir()
  assert_one_sentence(evaluate(checkpoint, tmp_path / "empty", tmp_path / "out"), "empty", "expected")
  done = command("track.py", "--checkpoint", checkpoint, "--input", tmp_path / "empty", "--box", "1,2,3,4", "--out",
                 tmp_path / "out")
  assert_one_sentence(done, "empty")


def test_a_config_that_does_not_fit_the_checkpoint(data, tmp_path):
  config = small.config()
  small.write_checkpoint(tmp_path / "run", config)
  path = next((tmp_path / "run" / "checkpoints").glob("*/config/metadata"))
  wrong = json.loads(path.read_text())
  wrong["model"]["features"] = 24
  path.write_text(json.dumps(wrong))
  done = evaluate(tmp_path / "run", data, tmp_path / "out")
  assert_one_sentence(done, "does not fit the config", "ema/dcfam", "(48, 8)")


def test_an_absent_first_frame(broken, checkpoint, tmp_path):
  label = broken / "sim_000000" / "IR_label.json"
  wrong = json.loads(label.read_text())
  wrong["exist"][0], wrong["gt_rect"][0] = 0, []
  label.write_text(json.dumps(wrong))
  assert_one_sentence(evaluate(checkpoint, broken, tmp_path / "out"), "sim_000000", "absent in the first frame")


def test_no_checkpoint_there(data, tmp_path):
  assert_one_sentence(evaluate(tmp_path / "nothing", data, tmp_path / "out"), "nothing", "no checkpoint")


def test_a_video_that_ends_early(tmp_path, checkpoint):
  writer = cv2.VideoWriter(str(tmp_path / "short.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
  for _ in range(5):
    writer.write(np.zeros((48, 64, 3), np.uint8))
  writer.release()
  (tmp_path / "seq").mkdir()
  shutil.move(tmp_path / "short.avi", tmp_path / "seq" / "infrared.avi")
  (tmp_path / "seq" / "infrared.json").write_text(json.dumps({"exist": [1] * 9, "gt_rect": [[9, 9, 8, 8]] * 9}))
  done = command("evaluate.py", "--checkpoint", checkpoint, "--format", "antiuav", "--root", tmp_path, "--out",
                 tmp_path / "out")
  assert_one_sentence(done, "9", "5")


def test_student_and_teacher_with_other_crop_sides(data, checkpoint, tmp_path):
  done = command("train.py", "--config", "configs/quickstart.py", "--workdir", tmp_path / "student",
                 f"--config.data.train.simulated.root={data}", f"--config.teacher.checkpoint={checkpoint}",
                 "--config.model.search_side=191")
  assert_one_sentence(done, "search_side", "127", "191")
