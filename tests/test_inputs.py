"""What frames are made of: files as cameras and programs leave them (docs/inputs.md)."""

import os
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import media_files
from input_pipeline import datasets, tiff
from input_pipeline.datasets.media import in_order
from input_pipeline.errors import UserError
from input_pipeline.frames import ImageFiles, VideoFile
from media_files import all_of

FRAMES, BOXES = media_files.recording()
COUNTS = media_files.counts(FRAMES)


def mapped(deep: np.ndarray) -> np.ndarray:
  """Deep frames as grey levels by the documented rule, in plain numpy: the first frame's percentiles become 0 and 255,
  moved by the difference of the means between the quartiles (of every fourth row and column)."""
  def middle(frame):
    part = frame[::4, ::4].astype(np.float64)
    low, high = np.percentile(part, [25, 75])
    return part[(part >= low) & (part <= high)].mean()

  low, high = np.percentile(deep[0], [0.1, 99.9])
  moved = np.array([middle(frame) - middle(deep[0]) for frame in deep])
  levels = (deep - low - moved[:, None, None]) / (high - low) * 255
  return levels.clip(0, 255)


# Orientation.


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_pixels_are_read_as_stored_whatever_the_orientation(tag, suffix, tmp_path, said):
  exif, paths = Image.Exif(), [tmp_path / f"{t}{suffix}" for t in range(2)]
  exif[0x0112] = tag
  for path, frame in zip(paths, FRAMES, strict=False):
    image = Image.fromarray(frame)
    image.save(path, **({"tiffinfo": {0x0112: tag}} if suffix == ".tif" else {"exif": exif, "quality": 95}))
  source = ImageFiles(paths)
  for _ in range(2):
    for t in range(2):
      assert np.abs(source[t].astype(int) - FRAMES[t]).mean() < (3 if suffix == ".jpg" else 1e-9)
  assert np.array_equal(source[1], ImageFiles(paths)[1])
  assert ("as stored" in said()) == (tag > 1)


def test_turned_deep_pages_are_read_as_stored(tmp_path):
  pages = [Image.fromarray(frame) for frame in COUNTS[:3]]
  pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:], tiffinfo={0x0112: 6})
  assert np.abs(all_of(ImageFiles([tmp_path / "stack.tif"])) - mapped(COUNTS[:3])).max() <= 0.5 + 1e-6


def test_a_video_that_asks_to_be_turned_is_not(tmp_path, said):
  plain = media_files.encode(tmp_path / "plain.mp4", FRAMES, "-c:v", "libx264")
  turned = tmp_path / "turned.mp4"
  subprocess.run([media_files.FFMPEG, "-v", "error", "-display_rotation", "90", "-i", plain, "-c", "copy", turned],
                 check=True)
  assert cv2.VideoCapture(str(turned)).read()[1].shape[:2] == (160, 128)  # What OpenCV would do.
  assert np.array_equal(all_of(datasets.open_frames(turned)), all_of(datasets.open_frames(plain)))
  assert "as stored" in said()


# Deep pixels.


@pytest.mark.parametrize("name, options", [
    ("a.mkv", ("-c:v", "ffv1")), ("a.avi", ("-c:v", "ffv1")), ("a.mov", ("-c:v", "png", "-pix_fmt", "gray16be")),
    ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray12le")), ("a.mkv", ("-c:v", "jpeg2000", "-pix_fmt", "gray16le")),
    ("a.mp4", ("-c:v", "libx265", "-x265-params", "lossless=1:log-level=none", "-pix_fmt", "yuv420p10le"))])
def test_deep_videos_keep_their_contrast(name, options, tmp_path, said):
  # What the format has room for: 12 bits of 16 hold every count below 4096 only, lossy formats less.
  spread = 64 * FRAMES.astype(np.uint16) if "jpeg2000" in options or name == "a.mp4" else COUNTS
  spread = 16 * FRAMES.astype(np.uint16) * 16 if "gray12le" in options else spread
  path = media_files.encode(tmp_path / name, spread, *options)
  got, expected = all_of(datasets.open_frames(path)), mapped(spread)
  assert got.shape == expected.shape and got.dtype == np.uint8
  assert np.abs(got - expected).mean() < (0.51 if spread is COUNTS else 4)
  assert "mapped to 8 bits" in said()


def test_deep_videos_do_not_depend_on_which_frame_is_read_first(tmp_path):
  path = media_files.encode(tmp_path / "a.mkv", COUNTS + 10 * np.arange(30, dtype=np.uint16)[:, None, None], "-c:v",
                            "ffv1")
  forward, backward = VideoFile(path, 30), VideoFile(path, 30)
  assert np.array_equal(all_of(forward), np.stack([backward[t] for t in reversed(range(30))])[::-1])


def test_8_bit_videos_are_what_opencv_decodes(tmp_path):
  for name, options in (("a.mp4", ("-c:v", "libx264")), ("a.mkv", ("-c:v", "ffv1")), ("a.avi", ("-c:v", "mjpeg"))):
    path = media_files.encode(tmp_path / name, FRAMES, *options)
    capture = cv2.VideoCapture(str(path))
    expected = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in FRAMES]
    assert np.array_equal(all_of(datasets.open_frames(path)), expected)


def test_a_deep_image_with_a_wrong_name_is_not_cut_to_8_bits(tmp_path):
  path = tmp_path / "a.jpg"
  path.write_bytes(cv2.imencode(".png", COUNTS[0])[1].tobytes())
  source = ImageFiles([path])
  assert np.abs(source[0] - mapped(COUNTS[:1])[0]).max() <= 0.5 + 1e-6
  assert source.encoded(0) is None


# Drift.


@pytest.mark.parametrize("drift", [lambda t: 10 * t, lambda t: -20 * t, lambda t: 700 * (t > 14)],
                         ids=["up", "down", "shutter"])
def test_a_map_follows_the_level_of_a_drifting_camera(drift, tmp_path):
  moved = (COUNTS + drift(np.arange(30))[:, None, None]).astype(np.uint16)
  still, drifting = (all_of(datasets.open_frames(media_files.images(tmp_path / name, frames, ".png")[0].parent))
                     for name, frames in (("still", COUNTS), ("drifting", moved)))
  assert np.abs(still.astype(int) - drifting).max() <= 1
  assert np.abs(drifting - mapped(moved)).max() <= 0.5 + 1e-3


def test_pixels_beyond_the_map_are_said_with_their_share(tmp_path, caplog, said):
  wider = np.stack([COUNTS[0], 7310 + 6 * FRAMES[1].astype(np.uint16)])
  media_files.images(tmp_path, wider, ".png")
  all_of(datasets.open_frames(tmp_path))
  assert "% of the pixels of frame 1 lie outside" in said()
  caplog.clear()
  media_files.images(tmp_path, COUNTS[:2], ".png")
  all_of(datasets.open_frames(tmp_path))
  assert "outside" not in said()


def test_the_first_frame_that_shows_anything_makes_the_map(tmp_path):
  """A radiometric camera may begin behind its shutter."""
  shut = np.concatenate([np.full_like(COUNTS[:2], 7400), COUNTS[:3]])
  media_files.images(tmp_path, shut, ".png")
  got = all_of(datasets.open_frames(tmp_path))
  assert (np.ptp(got[:2], axis=(1, 2)) == 0).all()
  assert np.abs(got[2:] - mapped(COUNTS[:3])).max() <= 0.5 + 1e-3


# Not finite.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_finite_numbers(bad, tmp_path, said):
  celsius = (20 + FRAMES[:4] / 300).astype(np.float32)
  celsius[:, 5, 7] = celsius[2, 60:64, 80:90] = bad
  media_files.images(tmp_path, celsius, ".tif")
  got = all_of(datasets.open_frames(tmp_path)).astype(float)
  clean = np.ones(got.shape, bool)
  clean[:, 5, 7] = clean[2, 60:64, 80:90] = False
  assert np.abs(got - mapped(20 + FRAMES[:4] / 300))[clean].max() < 2  # Percentiles and quartiles without those pixels.
  value = {np.inf: 255, -np.inf: 0}.get(bad, got[0].mean())
  assert np.abs(got[~clean] - value).max() < 20
  assert said().count("no finite numbers") == 1


def test_frames_without_any_finite_pixel_are_constant(tmp_path, said):
  celsius = (20 + FRAMES[:3] / 300).astype(np.float32)
  celsius[1] = np.nan
  media_files.images(tmp_path, celsius, ".tif")
  got = all_of(datasets.open_frames(tmp_path))
  assert np.ptp(got[1]) == 0 and np.ptp(got[2]) > 100
  assert "20480 of 20480 pixels of frame 1" in said()


def test_a_small_range_of_temperatures_is_spread(tmp_path):
  media_files.images(tmp_path, (FRAMES[:2] / 1e5).astype(np.float32), ".tif")
  assert np.ptp(datasets.open_frames(tmp_path)[1]) == 255


@pytest.mark.parametrize("first", [FRAMES[0], COUNTS[0]])
def test_pixels_of_two_types_are_no_sequence(first, tmp_path):
  other = COUNTS[1] if first.dtype == np.uint8 else FRAMES[1]
  for t, frame in enumerate([first, other]):
    cv2.imwrite(str(tmp_path / f"{t}.png"), frame)
  source = datasets.open_frames(tmp_path)
  with pytest.raises(UserError, match=r"frame 1 has pixels of type uint\d+, others of uint\d+; expected one type"):
    all_of(source)


def test_a_damaged_first_frame_does_not_take_the_others_with_it(tmp_path):
  paths = media_files.images(tmp_path, COUNTS[:4], ".png")
  expected = mapped(COUNTS[1:4])
  paths[0].write_bytes(paths[0].read_bytes()[:500])
  got = list(ImageFiles(paths).readable())
  assert isinstance(got[0], UserError)
  assert np.abs(np.stack(got[1:]) - expected).max() <= 0.5 + 1e-3


def test_a_few_far_pixels_do_not_stretch_the_map(tmp_path, caplog, said):
  far = {"telemetry": COUNTS[:3].copy(), "missing": (20 + FRAMES[:3] / 300).astype(np.float32),
         "column": COUNTS[:3].copy()}
  far["telemetry"][:, -2:] = np.random.default_rng(0).integers(0, 65535, (3, 2, 160))
  far["missing"][:, :5] = -9999
  far["column"][:, :, 7] = 0
  for name, frames in far.items():
    caplog.clear()
    media_files.images(tmp_path / name, frames, ".tif")
    got = all_of(datasets.open_frames(tmp_path / name))[:, 10:-4, 10:]
    assert np.corrcoef(got.ravel(), FRAMES[:3, 10:-4, 10:].ravel())[0, 1] > 0.95, name
    assert "lie far from the others" in said(), name


@pytest.mark.parametrize("name, options", [
    ("a.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme", "-x264-params", "tff=1")),
    ("a.mkv", ("-c:v", "mpeg2video", "-flags", "+ildct+ilme")), ("a.avi", ("-c:v", "mpeg4", "-flags", "+ildct+ilme")),
    ("a.mkv", ("-c:v", "ffv1", "-vf", "setfield=tff"))])
def test_interlaced_videos(name, options, tmp_path):
  """OpenCV 5.0 would give what is in memory."""
  path = media_files.encode(tmp_path / name, FRAMES, *options)
  got = all_of(datasets.open_frames(path))
  assert np.array_equal(got, all_of(datasets.open_frames(path)))
  assert np.corrcoef(got.ravel(), FRAMES.ravel())[0, 1] > 0.95


def test_av1(tmp_path):
  path = media_files.encode(tmp_path / "a.mp4", FRAMES, "-c:v", "libsvtav1", "-svtav1-params", "lp=1", "-loglevel",
                            "quiet")
  assert np.corrcoef(all_of(datasets.open_frames(path)).ravel(), FRAMES.ravel())[0, 1] > 0.9


def test_the_first_of_several_videos_is_read_and_said(tmp_path, said):
  one = media_files.encode(tmp_path / "a.mkv", FRAMES, "-c:v", "ffv1")
  two = media_files.encode(tmp_path / "b.mkv", FRAMES[:5], "-c:v", "ffv1")
  both = tmp_path / "both.mkv"
  subprocess.run([media_files.FFMPEG, "-v", "error", "-i", one, "-i", two, "-map", "0", "-map", "1", "-c", "copy",
                  both], check=True)
  assert len(list(datasets.open_frames(both))) == 30
  assert "holds 2 videos, of which the first is read" in said()


# More frames than are read.


def test_every_page_of_a_tiff_file_is_a_frame(tmp_path):
  path = tmp_path / "stack.tif"
  cv2.imwritemulti(str(path), list(COUNTS))
  for source in (datasets.open_frames(path), datasets.open_frames(tmp_path)):
    assert len(source) == 30
    assert np.abs(all_of(source) - mapped(COUNTS)).max() <= 0.5 + 1e-3
    assert np.array_equal(source[7], all_of(source)[7])


def test_pages_of_several_files_follow_one_another(tmp_path):
  cv2.imwritemulti(str(tmp_path / "2.tif"), list(FRAMES[:3]))
  cv2.imwrite(str(tmp_path / "10.tif"), FRAMES[3])
  cv2.imwritemulti(str(tmp_path / "11.tiff"), list(FRAMES[4:7]))
  assert np.array_equal(all_of(datasets.open_frames(tmp_path)), FRAMES[:7])


def test_a_cut_stack_says_so(tmp_path):
  path = tmp_path / "stack.tif"
  cv2.imwritemulti(str(path), list(COUNTS))
  expected = all_of(datasets.open_frames(path))
  media_files.cut(path)
  *pages, lost = datasets.open_frames(path).readable()
  assert 5 < len(pages) < 29 and np.array_equal(pages, expected[:len(pages)])
  assert "stack.tif: not a readable image (truncated or corrupt TIFF file" in str(lost)


def test_one_cut_file_does_not_take_the_others_with_it(tmp_path):
  for suffix in (".tif", ".png", ".jpg"):
    paths = media_files.images(tmp_path / suffix[1:], FRAMES[:5], suffix)
    media_files.cut(paths[2])
    got = list(datasets.open_frames(paths[0].parent).readable())
    assert [t for t, frame in enumerate(got) if isinstance(frame, UserError)] == [2]


def test_images_are_what_their_bytes_say(tmp_path):
  """A PNG file called .tif, and the other way round."""
  paths = media_files.images(tmp_path, FRAMES[:2], ".png")
  for path in paths:
    path.rename(path.with_suffix(".tif"))
  assert np.array_equal(all_of(datasets.open_frames(tmp_path)), FRAMES[:2])


def test_small_numbers_may_be_bright(tmp_path):
  Image.fromarray(65535 - COUNTS[0]).save(tmp_path / "a.tif", tiffinfo={262: 0})
  assert np.abs(datasets.open_frames(tmp_path)[0] - mapped(COUNTS[:1])[0]).max() <= 0.5 + 1e-3


def tiff_file(order: str, big: bool, kinds: list[int]) -> bytes:
  """A TIFF file of empty pages with the given subfile types, written by the specification (6.0; BigTIFF)."""
  form = {"offset": "Q" if big else "I", "count": "Q" if big else "H"}
  head = struct.pack(order + ("2sHHHQ" if big else "2sHI"), b"II" if order == "<" else b"MM",
                     *((43, 8, 0, 16) if big else (42, 8)))
  for n, kind in enumerate(kinds):
    value = struct.pack(order + "I", kind).ljust(8 if big else 4, b"\0")
    entry = struct.pack(order + ("HHQ" if big else "HHI"), 254, 4, 1) + value
    size = struct.calcsize(order + form["count"]) + len(entry) + struct.calcsize(order + form["offset"])
    following = len(head) + size if n + 1 < len(kinds) else 0
    head += struct.pack(order + form["count"], 1) + entry + struct.pack(order + form["offset"], following)
  return head


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_pages_of_all_kinds_of_tiff(order, big, tmp_path):
  (tmp_path / "a.tif").write_bytes(tiff_file(order, big, [0, 1, 2, 0]))
  pages, whole = tiff.pages(tmp_path / "a.tif")
  assert whole and [page.number for page in pages] == [0, 2, 3]  # 1 is a reduced copy.


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1), st.integers(0, 90))
def test_whatever_bytes_a_tiff_file_holds(noise, big, keep):
  path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"fuzz_{os.getpid()}.tif")
  with open(path, "wb") as file:
    file.write(tiff_file("<", bool(big), [0, 0])[:keep] + noise)
  try:
    assert all(1 <= page.orientation <= 8 for page in tiff.pages(path)[0])
  finally:
    os.unlink(path)


def test_an_animated_png_is_refused(tmp_path):
  images = [Image.fromarray(frame) for frame in FRAMES[:3]]
  images[0].save(tmp_path / "a.png", save_all=True, append_images=images[1:])
  with pytest.raises(UserError, match=r"a\.png: an animated PNG file"):
    datasets.open_frames(tmp_path)


def test_a_folder_of_two_kinds_of_images_is_refused(tmp_path):
  media_files.images(tmp_path, FRAMES[:3], ".jpg")
  media_files.images(tmp_path, FRAMES[:3], ".png")
  with pytest.raises(UserError, match=r"holds 3 \.jpg files and 3 \.png files, expected frames of one kind"):
    datasets.open_frames(tmp_path)


def test_two_spellings_of_one_kind_are_no_mixture(tmp_path):
  media_files.images(tmp_path, FRAMES[:2], ".jpg")
  (tmp_path / "001.jpg").rename(tmp_path / "001.JPEG")
  assert len(datasets.open_frames(tmp_path)) == 2


@pytest.mark.parametrize("names", [
    [f"t{t / 8}.png" for t in range(100)],  # Fractions of a second.
    [f"{t // 10}.{t % 10}.png" for t in range(100)],
    [f"t0,{t:g}.png" for t in (125, 25, 375, 5)],
    [f"take1.{t}.png" for t in range(1, 31)],  # Numbers after a point.
    [f"take1.{t}.png" for t in range(9, 12)],
    [f"clip.{t:04d}.jpg" for t in range(1, 40)],
    [f"1714564412{t:09d}.tif" for t in range(0, 90, 7)],  # Nanoseconds: more digits than a float has.
    [f"1714564412.{t:06d}.tif" for t in range(0, 999999, 77777)],
    [f"frame{t}.jpg" for t in range(25)],
])
def test_names_sort_by_their_numbers(names):
  assert in_order(reversed(names)) == in_order(sorted(names)) == names


@pytest.mark.parametrize("name", ["000_mask.png", "background.png", "005 (1).png", "0a.png"])
def test_names_of_several_patterns_are_said(name, tmp_path, said):
  paths = media_files.images(tmp_path, FRAMES[:10], ".png")
  (tmp_path / name).write_bytes(paths[0].read_bytes())
  assert len(datasets.open_frames(tmp_path)) == 11
  assert f"follow 2 patterns (10 are like 000.png, others like {name})" in said()


def test_numbers_that_are_left_out_are_said(tmp_path, said):
  paths = media_files.images(tmp_path, FRAMES[:10], ".png")
  datasets.open_frames(tmp_path)
  assert not said()
  paths[4].unlink()
  paths[5].unlink()
  datasets.open_frames(tmp_path)
  assert "go from 0 to 9 and leave 2 out, the first after 003.png" in said()
  (report,) = datasets.check("plain", tmp_path).sequences
  assert any("leave 2 out" in warning for warning in report.warnings)


# Names.


def test_names_that_are_no_text(tmp_path):
  """In a process of its own: OpenCV ends one at such names."""
  folder = os.fsencode(tmp_path) + b"/Fl\xfcge"
  os.mkdir(folder)
  media_files.motion_jpeg(tmp_path / "a.avi", FRAMES[:5])
  os.rename(tmp_path / "a.avi", folder + b"/dr\xf6hne.avi")
  cv2.imwritemulti(str(tmp_path / "a.tif"), list(FRAMES[:3]))
  os.rename(tmp_path / "a.tif", folder + b"/st\xe4ck.tif")
  code = ("import sys\nfrom input_pipeline import datasets\n"
          "print([len(list(datasets.open_frames(path))) for path in sys.argv[1:]])")
  done = subprocess.run([sys.executable, "-c", code, folder + b"/dr\xf6hne.avi", folder + b"/st\xe4ck.tif", folder],
                        capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (0, "[5, 3, 3]\n"), done.stderr
