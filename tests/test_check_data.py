"""What check_data finds, in the package and as a command."""

import pathlib
import subprocess
import sys

import pytest

from dataset_files import BOXES, write_images, write_json, write_video
from input_pipeline import datasets

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "check_data.py"


def run(format, root):
  command = [sys.executable, str(SCRIPT), f"--format={format}", f"--root={root}"]
  return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def check_one(format, root):
  report = datasets.check(format, root)
  assert len(report.sequences) == 1
  return report.sequences[0]


def truncate(path):
  data = path.read_bytes()
  path.write_bytes(data[:len(data) // 2])


def test_good_data(tmp_path):
  write_images(tmp_path / "s")
  write_json(tmp_path / "s" / "IR_label.json", BOXES, [1, 1, 1])
  report = check_one("antiuav410", tmp_path)
  assert not report.errors and not report.warnings
  assert (report.frames, report.labels, report.absent, report.shapes) == (3, 3, 0, {(48, 64): 3})
  done = run("antiuav410", tmp_path)
  assert done.returncode == 0 and "1 sequences, 3 frames decoded" in done.stdout


def test_all_problems_are_found_in_one_run(tmp_path):
  write_images(tmp_path / "truncated")
  truncate(tmp_path / "truncated" / "000002.jpg")
  write_json(tmp_path / "truncated" / "IR_label.json", BOXES)
  write_images(tmp_path / "count", count=2)
  write_json(tmp_path / "count" / "IR_label.json", BOXES)
  write_images(tmp_path / "absent_first")
  write_json(tmp_path / "absent_first" / "IR_label.json", BOXES, [0, 1, 1])
  write_images(tmp_path / "outside")
  write_json(tmp_path / "outside" / "IR_label.json", [BOXES[0], [-9, 2, 9, 9], [100, 2, 9, 9]])
  write_images(tmp_path / "numbers", count=4)
  write_json(tmp_path / "numbers" / "IR_label.json", [BOXES[0], [1, float("nan"), 2, 2], [1, 2, -3, 4], [1, 2, 3, -4]])
  (tmp_path / "empty").mkdir()
  done = run("antiuav410", tmp_path)
  assert done.returncode == 1 and "Traceback" not in done.stderr
  for expected in (
      f"{tmp_path}/truncated/000002.jpg: not a readable image",
      f"{tmp_path}/count/IR_label.json: 3 boxes for 2 frames",
      f"{tmp_path}/absent_first/IR_label.json: the target is absent in the first frame",
      "1 x absent frame with a real box",
      f"{tmp_path}/outside/IR_label.json: 2 frames have a box outside of the frame, the first is frame 1",
      f"{tmp_path}/numbers/IR_label.json: 1 frames have NaN or infinite numbers, the first is frame 1",
      f"{tmp_path}/numbers/IR_label.json: 2 frames have a negative width or height, the first is frame 2",
      f"{tmp_path}/empty: no labels",
      f"{tmp_path}/empty: no frames",
      "6 sequences, 14 frames decoded",
      "8 errors in 6 sequences, 1 warnings",
  ):
    assert expected in done.stdout, done.stdout


def test_warnings_do_not_fail(tmp_path):
  write_images(tmp_path / "s", count=2)
  write_images(tmp_path / "s", count=1, size=(32, 40), start=3)
  write_json(tmp_path / "s" / "IR_label.json", [[-3, 2, 9, 9], BOXES[1], [0, 0, 0, 0]], [1, 1, 1])
  done = run("antiuav410", tmp_path)
  assert done.returncode == 0
  for expected in ("frame size changes inside the sequence: 32x40 (1 frames), 64x48 (2 frames)", "sticks out",
                   "1 x visible frame with a zero box", "0 errors in 0 sequences, 3 warnings"):
    assert expected in done.stdout


@pytest.mark.parametrize("count", [2, 5])
def test_video_frames_are_counted_by_decoding(tmp_path, count):
  write_video(tmp_path / "s" / "infrared.avi", count=count)
  write_json(tmp_path / "s" / "infrared.json", BOXES)
  report = check_one("antiuav", tmp_path)
  assert report.frames == count and f"3 boxes for {count} frames" in report.errors[0]


def test_many_unreadable_frames_are_summed_up(tmp_path):
  write_images(tmp_path / "s", count=30)
  for t in range(5, 30):
    truncate(tmp_path / "s" / f"{t:06d}.jpg")
  write_json(tmp_path / "s" / "IR_label.json", [BOXES[0]] * 30)
  report = check_one("antiuav410", tmp_path)
  assert report.frames == 5 and len(report.errors) == 21 and "5 more unreadable frames" in report.errors[-1]


@pytest.mark.parametrize("format, root", [("antiuav", "gone"), ("antiuav", ""), ("nonsense", "")])
def test_command_refuses_in_one_sentence(tmp_path, format, root):
  done = run(format, tmp_path / root)
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert "expected" in done.stderr or "should be one of" in done.stderr


def test_help():
  done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
  assert "--root" in done.stdout and "every problem" in done.stdout
  for format in datasets.FORMATS:
    assert f"\n  {format} " in done.stdout
