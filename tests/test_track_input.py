"""`track_input`: nothing is computed for nothing, nothing that was computed is lost, and nothing is half written."""

import json
import os
import resource
import signal
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spots import SIDE, Spots, scene

from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from siamdff_jax import results
from siamdff_jax.results import Result
from siamdff_jax.tracking import encoding, single, video
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker

COUNT = 12
BOX = [60, 60, SIDE, SIDE]
FRAMES = scene([[(60 + 2 * t, 60)] for t in range(COUNT)])


class Timed(ArrayFrames):
  """Frames whose times are known; `at` is called with the number of each frame that is read."""

  def __init__(self, frames=FRAMES, times=None, at=lambda t: None):
    super().__init__(frames)
    self._times, self._at = times, at

  def __getitem__(self, t):
    self._at(t)
    return super().__getitem__(t)

  def times(self):
    return self._times


@pytest.fixture
def track(monkeypatch, tmp_path):
  """Calls `track_input` on a source of frames instead of a path; returns boxes.json, whatever the end is like."""
  monkeypatch.setattr(single, "load_tracker", lambda checkpoint, changes: (Tracker(Spots(), PLAIN), {}))

  def call(frames, box=BOX, out=None):
    monkeypatch.setattr(single.datasets, "open_frames", lambda source: frames)
    single.track_input("none", "clip.avi", [str(v) for v in box], str(tmp_path / "out" if out is None else out))
    return boxes_in(tmp_path)

  return call


@pytest.fixture
def no_model(monkeypatch):
  def load(checkpoint, changes):
    raise AssertionError("the model was loaded before --out was tried")

  monkeypatch.setattr(single, "load_tracker", load)


@pytest.fixture
def largest_file():
  """Sets how many bytes a file may have, as `ulimit -f` does: a disk that fills."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


def boxes_in(tmp_path):
  return json.loads((tmp_path / "out" / "boxes.json").read_text())


def decoded(path) -> tuple[int, float]:
  """(frames, frames per second) of a video, read by OpenCV."""
  capture, count = cv2.VideoCapture(str(path)), 0
  while capture.read()[0]:
    count += 1
  return count, capture.get(cv2.CAP_PROP_FPS)


def write_images(folder, frames=FRAMES):
  folder.mkdir()
  for t, frame in enumerate(frames):
    cv2.imwrite(str(folder / f"{t:03d}.png"), frame)


# --- what is written


def test_boxes_and_video(track, tmp_path, capsys):
  found = track(Timed())
  assert len(found["res"]) == COUNT and all(found["present"]) and found["init"] == BOX
  assert found.keys() == {"res", "score", "present", "init"}
  assert decoded(tmp_path / "out" / "track.mp4") == (COUNT, 30.0)
  assert sorted(os.listdir(tmp_path / "out")) == ["boxes.json", "track.mp4"]
  assert f"{COUNT} frames at " in (said := capsys.readouterr().out) and f"present in {COUNT}; boxes in " in said
  assert "at 30 frames/s, as the input does not say its own" in said


def test_times_of_the_source(track, tmp_path, capsys):
  """9 Hz, and a shutter pause of two seconds within it."""
  times = np.arange(COUNT) / 9
  assert track(Timed(times=times))["time"] == times.tolist()
  assert decoded(tmp_path / "out" / "track.mp4") == (COUNT, pytest.approx(9))
  assert "at 9 frames/s" in capsys.readouterr().out
  times[6:] += 2
  assert track(Timed(times=times))["time"] == times.tolist()
  assert decoded(tmp_path / "out" / "track.mp4") == (COUNT + 18, pytest.approx(9))


def test_a_folder_whose_name_is_no_text(track, tmp_path, monkeypatch):
  out = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
  monkeypatch.setattr(single, "print", lambda *_: None, raising=False)  # What a terminal shows is the command's.
  with pytest.raises(FileNotFoundError):
    track(Timed(), out=os.fsdecode(out))
  assert sorted(os.listdir(out)) == [b"boxes.json", b"track.mp4"]


# --- the box


@pytest.mark.parametrize("box, message", [
    ([0.3, 0.4, 0.05, 0.06], r"--box=0.3,0.4,0.05,0.06: looks like normalised coordinates \(0..1\), expected .*pixels"),
    ([300, 20, 16, 16], "clip.avi: the box .* lies outside the frame of 224x160 pixels"),
    ([-20, 20, 20, 16], "lies outside the frame"), ([10, 20, 16, -3], "has no size"),
    ([10, 20, 16, "nan"], "expected four numbers"), (["1_0", 20, 16, 16], "expected four numbers"),
    ([10, 20, 16, 170], "is larger than the frame of 224x160 pixels"), ([10, 20, 30], "expected four numbers"),
])
def test_boxes_that_cannot_be_right(track, no_model, tmp_path, box, message):
  with pytest.raises(UserError, match=message):
    track(Timed(), box=box)
  assert not (tmp_path / "out").exists()


def test_corners_are_suspected(track, caplog):
  """150,100,200,140 as corners is a box of 50x40."""
  track(Timed(FRAMES[:2]), box=[150, 100, 200, 140])
  assert "if it is x1,y1,x2,y2, then --box=150,100,50,40 is right" in caplog.text
  caplog.clear()
  track(Timed(FRAMES[:2]), box=[215, 100, 16, 16])
  assert not caplog.text


# --- where to write


@pytest.mark.parametrize("make", ["file", "below a file", "boxes.json is a folder", "no such device"])
def test_an_out_that_cannot_be_written(track, no_model, tmp_path, make):
  out = tmp_path / "out"
  if make == "boxes.json is a folder":
    (out / "boxes.json").mkdir(parents=True)
  elif make == "no such device":
    out = "/proc/out"
  else:
    out.write_text("mine")
    out = out / "below" if make == "below a file" else out
  with pytest.raises(UserError, match=f"^{out}: cannot be written"):
    track(Timed(), out=out)


def test_a_full_disk_is_found_first(track, no_model, tmp_path, largest_file):
  """The space for the boxes is taken before, and given back."""
  largest_file(100)
  with pytest.raises(UserError, match="out: cannot be written .*File too large"):
    track(Timed())
  assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_ones_own_stays(track, tmp_path, monkeypatch):
  def load(checkpoint, changes):
    raise UserError("no checkpoint")

  monkeypatch.setattr(single, "load_tracker", load)
  (tmp_path / "mine").mkdir()
  for name, stays in (("mine", True), ("new", False)):
    with pytest.raises(UserError, match="no checkpoint"):
      track(Timed(), out=tmp_path / name)
    assert (tmp_path / name).exists() == stays


def test_the_disk_fills_while_the_video_is_written(track, tmp_path, largest_file):
  """The boxes stay; neither half a video nor that of an earlier track does."""
  track(Timed(FRAMES[::-1].copy()), box=[82, 60, SIDE, SIDE])
  largest_file(20_000)
  with pytest.raises(UserError, match=r"track.mp4: the video cannot be written \(ffmpeg: .*; the boxes are in .*json"):
    track(Timed())
  assert os.listdir(tmp_path / "out") == ["boxes.json"] and boxes_in(tmp_path)["init"] == BOX
  assert all(boxes_in(tmp_path)["present"]) and "incomplete" not in boxes_in(tmp_path)


@pytest.mark.parametrize("does", ["cp $IN", "head -c 9000 $IN >", "head -c 0 $IN >", "exit 3;"])
def test_an_encoder_that_fails_without_saying_so(tmp_path, monkeypatch, does):
  """It leaves a whole video with too few frames, a cut one, none, and ends well; or only its exit code says so."""
  result = Result([BOX] * COUNT)
  video.write(str(tmp_path / "few.mp4"), FRAMES[:8], Result([BOX] * 8))
  fake = tmp_path / "ffmpeg"
  fake.write_text(f'#!/bin/sh\ncat > /dev/null\nfor last; do :; done\nIN={tmp_path}/few.mp4\n{does} "$last"\n')
  fake.chmod(0o755)
  monkeypatch.setattr(encoding, "find_encoder", lambda: str(fake))
  with pytest.raises(UserError, match="new.mp4: the video cannot be written"):
    video.write(str(tmp_path / "new.mp4"), FRAMES, result)
  assert sorted(os.listdir(tmp_path)) == ["few.mp4", "ffmpeg"]


# --- inputs that break, processes that are stopped


def test_a_frame_in_the_middle_that_cannot_be_read(monkeypatch, tmp_path, capsys):
  """A cut PNG: the others are tracked, the video keeps its time, the end is an error."""
  monkeypatch.setattr(single, "load_tracker", lambda checkpoint, changes: (Tracker(Spots(), PLAIN), {}))
  write_images(tmp_path / "frames")
  path = tmp_path / "frames" / "007.png"
  path.write_bytes(path.read_bytes()[:99])
  with pytest.raises(UserError, match="007.png: .*; of 12 announced frames 11 could be read; the boxes of "
                                      "these are in .*boxes.json, which is marked as incomplete"):
    single.track_input("none", str(tmp_path / "frames"), [str(v) for v in BOX], str(tmp_path / "out"))
  found = boxes_in(tmp_path)
  assert [t for t, box in enumerate(found["res"]) if not box] == [7] and found["score"][7] == 0
  assert found["incomplete"]["tracked"] == 11 and found["incomplete"]["announced"] == 12
  assert "007.png" in found["incomplete"]["why"]
  assert decoded(tmp_path / "out" / "track.mp4")[0] == COUNT
  assert "present in 11, 1 could not be read" in capsys.readouterr().out
  with pytest.raises(UserError, match="boxes.json: is marked as incomplete"):
    results.read(tmp_path / "out" / "boxes.json")


@pytest.mark.parametrize("number, raised", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit),
                                            (signal.SIGHUP, SystemExit)])
def test_told_to_stop_while_tracking(track, tmp_path, number, raised):
  """Twice: the second signal does not stop the writing. The frames before are there, and those only."""
  frames = scene([[(60 + t // 4, 60)] for t in range(400)])
  tracked = threading.Event()

  def at(t):
    if t == 200:
      os.kill(os.getpid(), number)
      tracked.wait(0.5)
      os.kill(os.getpid(), number)

  handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
  with pytest.raises(raised) as stopped:
    track(Timed(frames, np.arange(400) / 9, at))
  assert raised is KeyboardInterrupt or stopped.value.code == 128 + number
  assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
  found = boxes_in(tmp_path)
  assert 150 < len(found["res"]) < 400 and all(found["present"])
  assert len(found["time"]) == len(found["score"]) == len(found["res"]) == found["incomplete"]["tracked"]
  assert found["incomplete"]["announced"] == 400 and found["incomplete"]["why"]
  assert os.listdir(tmp_path / "out") == ["boxes.json"]


def test_stopped_while_the_video_is_written(track, tmp_path):
  """The boxes are whole by then."""
  seen = []

  def at(t):
    seen.append(t)
    if len(seen) == COUNT + 5:
      os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(KeyboardInterrupt):
    track(Timed(at=at))
  assert os.listdir(tmp_path / "out") == ["boxes.json"] and "incomplete" not in boxes_in(tmp_path)
  assert len(boxes_in(tmp_path)["res"]) == COUNT


def test_stopped_while_the_boxes_are_written(track, tmp_path, monkeypatch):
  """Between the last frame and the last byte."""
  write, calls = results.write, []

  def interrupted(path, result, **options):
    calls.append(path)
    if len(calls) == 1:
      os.kill(os.getpid(), signal.SIGTERM)
    write(path, result, **options)

  monkeypatch.setattr(single.results, "write", interrupted)
  with pytest.raises(SystemExit):
    track(Timed())
  assert len(calls) == 2 and len(boxes_in(tmp_path)["res"]) == COUNT and "incomplete" not in boxes_in(tmp_path)


def test_whatever_ends_it_the_boxes_are_kept(track, tmp_path):
  def at(t):
    if t == 8:
      raise MemoryError("no more")

  with pytest.raises(MemoryError):
    track(Timed(at=at))
  found = boxes_in(tmp_path)
  assert 1 <= len(found["res"]) <= 8 and found["incomplete"]["why"] == "MemoryError: no more"


# --- the pace of a video


@pytest.mark.parametrize("rate", [1 / 60, 9, 29.97, 30, 240])
def test_a_constant_rate_is_kept(rate):
  """Times in whole milliseconds, as Matroska has them, too."""
  for times in (np.arange(300) / rate, np.round(np.arange(300) / rate, 3)):
    found, shown = video.schedule(times, 300)
    assert found == pytest.approx(rate, rel=1e-3) or rate == 240
    assert rate == 240 or (shown == 1).all()


@given(st.lists(st.floats(0.02, 3), min_size=1, max_size=40))
def test_a_variable_rate_shows_every_frame_at_its_time(steps):
  times = np.concatenate([[0.0], np.cumsum(steps)])
  rate, shown = video.schedule(times, len(times))
  starts = (np.cumsum(shown) - shown) / rate
  assert (shown >= 1).all() and shown[-1] == 1
  tolerance = 0.11 * times[-1] / len(steps)  # What is taken for a constant rate.
  assert np.abs(starts - times).max() <= max(0.5 / rate, tolerance) + 1e-6


@pytest.mark.parametrize("times", [None, [0.0] * 4, [0.0, 0.0, 1.0, 1.0], [0, 1e-9, 2e-9, 5.0], [0, 1, 9e4, 9e4 + 1]])
def test_odd_times_give_a_video_that_ends(times):
  """Unknown, all equal, pairs, much closer than a screen shows, a clock that jumped by a day."""
  rate, shown = video.schedule(None if times is None else np.array(times, float), 4)
  assert 0.5 <= rate <= 120 and 1 <= shown.sum() <= 1300 and (shown >= 0).all()
