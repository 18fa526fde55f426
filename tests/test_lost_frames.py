"""Frames that are not there, damaged ones, and when each of them is (docs/inputs.md)."""

import os
import subprocess

import numpy as np
import pytest

import media_files
from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.frames import ImageFiles
from media_files import all_of

FRAMES, BOXES = media_files.recording()
COUNTS = media_files.counts(FRAMES)


def readable(path):
  return list(datasets.open_frames(path).readable())


def test_a_damaged_frame_keeps_its_place(tmp_path):
  whole = all_of(datasets.open_frames(media_files.motion_jpeg(tmp_path / "whole.avi", FRAMES)))
  path = media_files.damage(media_files.motion_jpeg(tmp_path / "a.avi", FRAMES), 11)
  got = readable(path)
  assert len(got) == 30
  assert [t for t, frame in enumerate(got) if isinstance(frame, UserError)] == [11]
  assert "a.avi: frame 11 of the video cannot be decoded (30 announced, 29 decoded)" in str(got[11])
  assert all(np.array_equal(frame, whole[t]) for t, frame in enumerate(got) if t != 11)
  source = datasets.open_frames(path)
  assert np.array_equal(source[20], whole[20])
  with pytest.raises(UserError, match="frame 11 of the video cannot be decoded"):
    source[11]
  with pytest.raises(UserError, match="frame 11 of the video cannot be decoded"):
    list(source)


@pytest.mark.parametrize("name, options", [("a.avi", ("-c:v", "mjpeg")), ("a.mkv", ("-c:v", "ffv1")),
                                           ("a.avi", ("-c:v", "ffv1", "-pix_fmt", "gray16le"))])
def test_a_cut_video_is_read_as_far_as_it_goes(name, options, tmp_path):
  frames = COUNTS if "gray16le" in options else FRAMES
  got = readable(media_files.cut(media_files.encode(tmp_path / name, frames, *options)))
  decoded = sum(isinstance(frame, np.ndarray) for frame in got)
  assert len(got) == 30 and 5 < decoded < 29
  assert all(isinstance(frame, np.ndarray) for frame in got[:decoded])
  assert f"the video ends after {decoded} frames, 30 were expected (30 announced, {decoded} decoded" in str(got[-1])


def test_frames_lost_inside_a_video_keep_the_others_in_place(tmp_path):
  """Without a word of the decoder: Matroska goes on with the next block that it finds."""
  path = media_files.encode(tmp_path / "a.mkv", FRAMES, "-c:v", "ffv1", "-g", "1")
  whole = all_of(datasets.open_frames(path))
  content = bytearray(path.read_bytes())
  content[len(content) // 2:len(content) // 2 + 9000] = bytes(9000)
  path.write_bytes(content)
  got = readable(path)
  lost = [t for t, frame in enumerate(got) if isinstance(frame, UserError)]
  assert len(got) == 30 and lost and min(lost) > 5 and max(lost) < 29
  assert all(np.array_equal(frame, whole[t]) for t, frame in enumerate(got) if t not in lost and t > max(lost))


def test_whole_videos_announce_what_they_hold(tmp_path):
  """No false alarm, also where a container holds a duration only, or sound that is longer."""
  for n, (name, options) in enumerate([
      ("a.mkv", ("-c:v", "libx264")), ("a.ts", ("-c:v", "libx264")), ("a.mpg", ("-c:v", "mpeg2video")),
      ("a.webm", ("-c:v", "libvpx")), ("a.mp4", ("-c:v", "libx264", "-bf", "3")), ("a.mov", ("-c:v", "mjpeg"))]):
    got = readable(media_files.encode(tmp_path / f"{n}{name}", FRAMES, *options))
    assert len(got) == 30 and all(isinstance(frame, np.ndarray) for frame in got), name


def test_a_pause_is_no_lost_frame(tmp_path):
  """Matroska says only how long a video lasts: here 50 frames of its rate."""
  path = media_files.encode(tmp_path / "a.mkv", FRAMES, "-vf", "setpts=N+20*gte(N\\,15)", "-fps_mode", "passthrough",
                            "-c:v", "libx264", rate=9)
  frames = datasets.open_frames(path)
  assert len(frames) == 30 and all(isinstance(frame, np.ndarray) for frame in frames.readable())
  assert np.abs(frames.times() - np.where(np.arange(30) < 15, np.arange(30), np.arange(20, 50)) / 9).max() < 2e-3


def test_times_of_frames_that_are_not_there(tmp_path):
  for number in (0, 11, 29):
    path = media_files.damage(media_files.motion_jpeg(tmp_path / f"{number}.avi", FRAMES), number)
    frames = datasets.open_frames(path)
    assert [t for t, frame in enumerate(frames.readable()) if isinstance(frame, UserError)] == [number]
    assert np.abs(frames.times() - np.arange(30) / 30).max() < 2e-3
  frames = datasets.open_frames(media_files.cut(media_files.motion_jpeg(tmp_path / "cut.avi", FRAMES)))
  assert np.abs(frames.times() - np.arange(30) / 30).max() < 2e-3


def test_frames_that_are_left_out_are_not_lost(tmp_path):
  """By the edit list of a video that was cut without coding it again, or as empty frames of an .avi file."""
  whole = media_files.encode(tmp_path / "whole.mp4", FRAMES, "-c:v", "libx264", "-g", "30")
  part = tmp_path / "part.mp4"
  subprocess.run([media_files.FFMPEG, "-v", "error", "-ss", "0.35", "-i", whole, "-c", "copy", part], check=True)
  dropped = media_files.encode(tmp_path / "dropped.avi", FRAMES, "-vf", "setpts='if(gte(N,10),N+3,N)/30/TB'", "-c:v",
                               "mjpeg", "-fps_mode", "passthrough")
  for path, count in ((part, 19), (dropped, 30)):
    got = readable(path)
    assert len(got) == count and all(isinstance(frame, np.ndarray) for frame in got)


def test_damage_that_the_decoder_hides_is_said(tmp_path, said):
  path = media_files.encode(tmp_path / "a.avi", FRAMES, "-c:v", "libx264", "-g", "5")
  content = bytearray(path.read_bytes())
  for at in range(len(content) * 3 // 10, len(content) * 6 // 10, len(content) // 15):
    content[at] ^= 0xFF
  path.write_bytes(content)
  datasets.open_frames(path)
  assert "a.avi: the video is damaged (" in said()
  np.savetxt(tmp_path / "a.txt", BOXES, delimiter=",")
  (report,) = datasets.check("plain", tmp_path).sequences
  assert any("the video is damaged (" in warning for warning in report.warnings)


def test_frames_of_another_size_inside_a_video(tmp_path):
  parts = [media_files.encode(tmp_path / f"{n}.ts", part, "-c:v", "libx264")
           for n, part in enumerate((FRAMES[:15], FRAMES[15:, :96, :128]))]
  path = tmp_path / "both.ts"
  path.write_bytes(b"".join(part.read_bytes() for part in parts))
  got = readable(path)
  wrong = [t for t, frame in enumerate(got) if isinstance(frame, UserError)]
  assert len(wrong) >= 14 and min(wrong) >= 14
  assert "another size than the first" in str(got[-1])


def test_a_jpeg_with_something_behind_it(tmp_path):
  paths = media_files.images(tmp_path, FRAMES[:2], ".jpg")
  expected = all_of(ImageFiles(paths))
  paths[0].write_bytes(paths[0].read_bytes() + bytes(500))
  assert np.array_equal(all_of(ImageFiles(paths)), expected)
  content, preview = paths[1].read_bytes(), b"\xff\xe1\x00\x08\xff\xda\x00\x02\xff\xd9"  # With an end of its own.
  paths[1].write_bytes(content[:2] + preview + content[2:len(content) // 2])
  with pytest.raises(UserError, match=r"001\.jpg: not a readable image"):
    ImageFiles(paths)[1]


def test_a_pipe_among_images(tmp_path):
  media_files.images(tmp_path, FRAMES[:2], ".png")
  os.mkfifo(tmp_path / "002.png")
  *_, last = datasets.open_frames(tmp_path).readable()
  assert "002.png: is no file, expected an image" in str(last)


def test_check_names_both_counts(tmp_path):
  for name, break_it in (("damaged", lambda p: media_files.damage(p, 11)), ("short", media_files.cut)):
    break_it(media_files.motion_jpeg(tmp_path / f"{name}.avi", FRAMES))
    np.savetxt(tmp_path / f"{name}.txt", BOXES, delimiter=",")
  by_name = {report.name: report for report in datasets.check("plain", tmp_path).sequences}
  assert any("(30 announced, 29 decoded)" in error for error in by_name["damaged"].errors)
  assert by_name["damaged"].frames == 29
  assert len(by_name["short"].errors) == 1 and "(30 announced, " in by_name["short"].errors[0]


def test_labels_of_a_damaged_video_keep_their_frames(tmp_path):
  media_files.damage(media_files.motion_jpeg(tmp_path / "a.avi", FRAMES), 11)
  np.savetxt(tmp_path / "a.txt", BOXES, delimiter=",")
  (sequence,) = datasets.load("plain", tmp_path)
  with pytest.raises(UserError, match="frame 11 of the video cannot be decoded"):
    list(sequence.frames)


# Time.


@pytest.mark.parametrize("rate", [9, 25, 29.97])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_times_of_a_steady_video(name, rate, tmp_path):
  path = media_files.encode(tmp_path / name, FRAMES, "-c:v", "mjpeg" if name == "a.avi" else "libx264", rate=rate)
  assert np.abs(datasets.open_frames(path).times() - np.arange(30) / rate).max() < 2e-3


def test_times_of_a_video_of_varying_rate(tmp_path):
  path = media_files.encode(tmp_path / "a.mp4", FRAMES, "-vf", "settb=1/1000,setpts=N*100+N*N*3", "-enc_time_base",
                            "1:1000", "-fps_mode", "passthrough", "-c:v", "libx264")
  n = np.arange(30)
  assert np.abs(datasets.open_frames(path).times() - (n * 100 + n * n * 3) / 1000).max() < 2e-3


def test_images_have_no_times(tmp_path):
  media_files.images(tmp_path, FRAMES[:2], ".png")
  assert datasets.open_frames(tmp_path).times() is None
