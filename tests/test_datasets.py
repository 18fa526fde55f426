"""The dataset readers, on folders that mimic the oddities of the real ones."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import BOXES, write_images, write_json, write_text, write_video
from input_pipeline import datasets
from input_pipeline.datasets import labels, media
from input_pipeline.errors import UserError

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def only(sequences):
  assert len(sequences) == 1
  return sequences[0]


# --- Anti-UAV ---------------------------------------------------------------------------------------------------


def test_antiuav_video_and_frames(tmp_path):
  write_video(tmp_path / "b" / "infrared.avi")
  write_video(tmp_path / "b" / "visible.avi", count=7)
  write_json(tmp_path / "b" / "infrared.json", BOXES, [1, 1, 1])
  write_images(tmp_path / "a")
  write_json(tmp_path / "a" / "IR_label.json", BOXES, [1, 1, 1], attributes=["TS", "OV"])
  write_images(tmp_path / "c" / "infrared")
  write_json(tmp_path / "c" / "infrared.json", BOXES)
  sequences = datasets.load("antiuav", tmp_path)
  assert [s.name for s in sequences] == ["a", "b", "c"]
  assert [s.attributes for s in sequences] == [("TS", "OV"), (), ()]
  for sequence in sequences:
    np.testing.assert_array_equal(sequence.boxes, np.float32(BOXES))
    assert sequence.boxes.dtype == np.float32 and sequence.visible.all() and not sequence.mended
    means = [frame.mean() for frame in sequence.frames]
    np.testing.assert_allclose(means, [10, 20, 30], atol=2)
    assert sequence.frames[2].shape == (48, 64) and sequence.frames[2].dtype == np.uint8


def test_absent_in_every_spelling_and_what_is_mended(tmp_path):
  rows = [[1, 2, 3, 4], [], [0, 0, 0, 0], [float("nan")] * 4, [0, 0, 0, 0], [5, 6, 7, 8], None]
  write_json(tmp_path / "s" / "infrared.json", rows, [1, 0, 0, 0, 1, 0, 0])
  sequence = only(datasets.load("antiuav", tmp_path, frames=False))
  assert sequence.visible.tolist() == [True] + [False] * 6
  np.testing.assert_array_equal(sequence.boxes[1:], 0)
  assert sorted(sequence.mended.values()) == [1, 1]
  assert sequence.frames is None


def test_missing_exist_and_gt_key(tmp_path):
  write_json(tmp_path / "s" / "IR_label.json", [[1.5, 2, 3, 4], []], key="gt")
  sequence = only(datasets.load("antiuav410", tmp_path, frames=False))
  assert sequence.visible.tolist() == [True, False] and sequence.boxes[0, 0] == 1.5


def test_pseudo_labels_are_refused(tmp_path):
  write_video(tmp_path / "s" / "infrared.avi")
  write_json(tmp_path / "s" / "infrared_pseudo.json", BOXES, [1, 1, 1])
  for frames in (True, False):
    with pytest.raises(UserError, match="expected infrared.json or IR_label.json.*infrared_pseudo.json is not read"):
      datasets.load("antiuav", tmp_path, frames=frames)


def test_two_infrared_videos(tmp_path):
  for suffix in ("avi", "mkv"):
    write_video(tmp_path / "s" / f"infrared.{suffix}")
  write_json(tmp_path / "s" / "infrared.json", BOXES)
  with pytest.raises(UserError, match="expected one infrared video"):
    datasets.load("antiuav", tmp_path)


@pytest.mark.parametrize("content, problem", [
    (b"", "not readable as JSON"),
    (b"{", "not readable as JSON"),
    (b"\xff\xfe\x00", "not readable as JSON"),
    (b"[" * 100_000, "not readable as JSON"),
    (b"[1, 2]", "gt_rect"),
    (b"{}", "gt_rect"),
    (b'{"gt_rect": {}}', "gt_rect"),
    (b'{"gt_rect": []}', "no boxes"),
    (b'{"gt_rect": [[1, 2, 3]]}', "frame 0 has the box"),
    (b'{"gt_rect": [[1, 2, 3, "4"]]}', "frame 0 has the box"),
    (b'{"gt_rect": [[1, 2, 3, true]]}', "frame 0 has the box"),
    (b'{"gt_rect": [[1, 2, -3, 4]]}', "w,h >= 0"),
    (b'{"gt_rect": [[1, NaN, 3, 4]]}', "finite"),
    (b'{"gt_rect": [[1, Infinity, 3, 4]]}', "finite"),
    (b'{"gt_rect": [[1, 2, 3, 1e300]]}', "pixel coordinates"),
    (b'{"gt_rect": [[1, 2, 3, 1' + b"0" * 400 + b"]]}", "pixel coordinates"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "exist": [1, 1]}', "2 visibility flags for 1 boxes"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "exist": [2]}', "exist"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "exist": 1}', "exist"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "attributes": "TS"}', "attributes"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": {}}', "lookalikes"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[1, 2, 3, 4]]}', "a look-alike"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[0, 2, 3, 4, "5"]]}', "a look-alike"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[1, 2, 3, 4, 5]]}', "a frame from 0 to 0"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[0.5, 2, 3, 4, 5]]}', "a frame from 0 to 0"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[0, 2, 3, 4, 0]]}', "w,h > 0"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[0, NaN, 3, 4, 5]]}', "w,h > 0"),
    (b'{"gt_rect": [[1, 2, 3, 4]], "lookalikes": [[0, 2, 3, 4, 1e300]]}', "pixel coordinates"),
])
def test_bad_json(tmp_path, content, problem):
  write_text(tmp_path / "s" / "infrared.json", content)
  with pytest.raises(UserError, match=problem) as error:
    datasets.load("antiuav", tmp_path, frames=False)
  assert str(tmp_path / "s" / "infrared.json") in str(error.value) and "\n" not in str(error.value)


# --- Anti-UAV410 ------------------------------------------------------------------------------------------------


@pytest.fixture(name="root410")
def _root410(tmp_path):
  """Two splits that share a sequence name; `val` without JSON."""
  for split in ("train", "val"):
    write_images(tmp_path / split / "01")
    write_text(tmp_path / "annos" / split / "01.txt", "10,12,8,6\r\n0,0,0,0\r\n12,13,8,6\r\n")
  write_text(tmp_path / "annos" / "val" / "att" / "01.txt", "0,1,0,0,0,0,1,0,0,0\n")
  write_json(tmp_path / "train" / "01" / "IR_label.json", BOXES, [1, 1, 1], attributes=["SV"])
  write_images(tmp_path / "train" / "02")
  write_json(tmp_path / "train" / "02" / "IR_label.json", BOXES, [1, 1, 1])
  return tmp_path


def test_antiuav410_splits_annos_attributes(root410):
  assert [s.name for s in datasets.load("antiuav410", root410)] == ["02", "train_01", "val_01"]
  by_name = {s.name: s for s in datasets.load("antiuav410", root410)}
  assert by_name["train_01"].visible.all() and by_name["train_01"].attributes == ("SV",)
  assert by_name["val_01"].visible.tolist() == [True, False, True]
  assert by_name["val_01"].attributes == ("OV", "TS")


@pytest.mark.parametrize("below", ["val", "val/01", "annos/val"])
def test_antiuav410_other_roots(root410, below):
  sequence = only(datasets.load("antiuav410", root410 / below, frames=False))
  assert (sequence.name, sequence.attributes, len(sequence)) == ("01", ("OV", "TS"), 3)


def test_antiuav410_annotations_alone(root410, tmp_path_factory):
  copy = tmp_path_factory.mktemp("only") / "root"
  copy.mkdir()
  (root410 / "annos").rename(copy / "annos")
  assert [s.name for s in datasets.load("antiuav410", copy, frames=False)] == ["train_01", "val_01"]
  with pytest.raises(UserError, match="no sequences found, expected"):
    datasets.load("antiuav410", copy)


def test_antiuav410_bad_attribute_flags(root410):
  file = write_text(root410 / "annos" / "val" / "att" / "01.txt", "0,1,0")
  with pytest.raises(UserError, match="expected 10 flags") as error:
    datasets.load("antiuav410", root410 / "val")
  assert str(file) in str(error.value)


# --- OTB and plain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["groundtruth_rect.txt", "groundtruth.txt", "s.txt"])
def test_otb_is_one_based(tmp_path, name):
  write_images(tmp_path / "s" / "img")
  write_text(tmp_path / "s" / name, "1,1,8,6\n11\t12\t8\t6\nNaN,NaN,NaN,NaN\n")
  sequence = only(datasets.load("otb", tmp_path))
  np.testing.assert_array_equal(sequence.boxes, [[0, 0, 8, 6], [10, 11, 8, 6], [0, 0, 0, 0]])
  assert sequence.visible.tolist() == [True, True, False] and len(sequence.frames) == 3


def test_plain_is_zero_based_in_every_arrangement(tmp_path):
  text = "1,1,8,6\n11,12,8,6\n0,0,0,0\n"
  write_images(tmp_path / "frames")
  write_text(tmp_path / "frames" / "groundtruth.txt", text)
  write_images(tmp_path / "img_folder" / "img")
  write_text(tmp_path / "img_folder" / "groundtruth.txt", text)
  write_video(tmp_path / "video_folder" / "clip.avi")
  write_text(tmp_path / "video_folder" / "groundtruth.txt", text)
  write_video(tmp_path / "x.avi")
  write_text(tmp_path / "x.txt", text)
  sequences = datasets.load("plain", tmp_path)
  assert [s.name for s in sequences] == ["frames", "img_folder", "video_folder", "x"]
  for sequence in sequences:
    np.testing.assert_array_equal(sequence.boxes, [[1, 1, 8, 6], [11, 12, 8, 6], [0, 0, 0, 0]])
    assert len(list(sequence.frames)) == 3
  for single in ("frames", "img_folder", "video_folder", "x.avi", "video_folder/clip.avi"):
    assert len(only(datasets.load("plain", tmp_path / single))) == 3


def test_plain_annotations_alone(tmp_path):
  for name in ("a", "b"):
    write_text(tmp_path / f"{name}.txt", "1,1,8,6\n")
  assert [s.name for s in datasets.load("plain", tmp_path, frames=False)] == ["a", "b"]


def test_plain_without_labels(tmp_path):
  write_images(tmp_path / "frames")
  with pytest.raises(UserError, match="no labels, expected .*groundtruth.txt"):
    datasets.load("plain", tmp_path)
  report = datasets.check("plain", tmp_path)
  assert (report.num_errors, report.num_warnings, report.sequences[0].frames) == (0, 1, 3)


# --- Text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "1,2,3,4\n5,6,7,8",
    "1\t2\t3\t4\n5\t6\t7\t8\n",
    "1 2 3 4\r\n5   6 7 8\r\n\r\n\r\n",
    "1;2;3;4\r5; 6; 7; 8\r",
    "\ufeff1, 2, 3, 4\n5.0e0,6.,7,+8,\n",
    "  1 ,2\t, 3,4  \n 5,6,7,8\n \t \n",
])
def test_text_separators(tmp_path, text):
  found = labels.read_text(write_text(tmp_path / "a.txt", text))
  np.testing.assert_array_equal(found.boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize("text, problem", [
    ("", "no boxes"),
    ("\n\n", "no boxes"),
    ("x,y,w,h\n1,2,3,4", "line 1 is 'x,y,w,h'"),
    ("1,2,3,4\n\n5,6,7,8", "line 2 is ''"),
    ("1,2,3,4\n5,,7,8", "line 2"),
    ("1,2,3", "line 1"),
    ("1,2,3,4,5,6,7,8", "line 1"),
    ("nan,2,3,4", "finite"),
    ("1,2,inf,4", "finite"),
    ("1,2,3,-4", "w,h >= 0"),
    ("1,2,3,1e30", "pixel coordinates"),
    (b"\xff\xfe1\x00", "not a UTF-8 text file"),
])
def test_bad_text(tmp_path, text, problem):
  file = write_text(tmp_path / "a.txt", text)
  with pytest.raises(UserError, match=problem) as error:
    datasets.load("plain", tmp_path, frames=False)
  assert str(file) in str(error.value) and "\n" not in str(error.value)


def assert_parses_or_refuses(format, root):
  try:
    sequences = datasets.load(format, root, frames=False)
  except UserError as error:
    assert str(root) in str(error)
    return
  sequence = only(sequences)
  assert np.isfinite(sequence.boxes).all()
  np.testing.assert_array_equal(sequence.visible, (sequence.boxes != 0).any(axis=1))
  assert (sequence.boxes[sequence.visible, 2:] > 0).all()


ODD_NUMBERS = st.sampled_from(["NaN", "0", "-1", "1e-60", "", "x", "1_0", "٣"])
NUMBERS = st.one_of(st.floats(), st.integers(), ODD_NUMBERS).map(str)
LINES = st.lists(NUMBERS, max_size=6).flatmap(lambda row: st.sampled_from(list(",; \t")).map(lambda sep: sep.join(row)))


@FUZZ
@given(content=st.one_of(st.binary(), st.text().map(str.encode), st.lists(LINES).map(lambda x: "\n".join(x).encode())))
def test_fuzz_text(tmp_path, content):
  write_text(tmp_path / "a.txt", content)
  assert_parses_or_refuses("plain", tmp_path)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)))
ROWS = st.lists(st.one_of(VALUES, st.lists(st.one_of(st.integers(-2, 99), st.floats()), min_size=4, max_size=4)))
OBJECTS = st.fixed_dictionaries(
    {}, optional={"gt_rect": ROWS, "gt": ROWS, "exist": st.one_of(VALUES, st.lists(st.booleans())),
                  "attributes": VALUES})


@FUZZ
@given(content=st.one_of(st.binary(), VALUES.map(json.dumps).map(str.encode), OBJECTS.map(json.dumps).map(str.encode)))
def test_fuzz_json(tmp_path, content):
  write_text(tmp_path / "s" / "infrared.json", content)
  assert_parses_or_refuses("antiuav", tmp_path / "s")


# --- Frames -----------------------------------------------------------------------------------------------------


def test_natural_order(tmp_path):
  write_images(tmp_path, count=12, names="frame{}.jpg")
  means = [frame.mean() for frame in datasets.open_frames(tmp_path)]
  assert np.all(np.diff(means) > 5)


def test_natural_key_ties_and_mixed_names():
  names = ["b1", "a10", "a2", "a02", "10", "9", "a", "", "a2b10", "a2b9"]
  expected = ["", "9", "10", "a", "a02", "a2", "a2b9", "a2b10", "a10", "b1"]
  assert sorted(names, key=media.natural_key) == sorted(set(names), key=media.natural_key) == expected


def test_hidden_files_links_and_unicode_names(tmp_path):
  folder = tmp_path / "root" / "дрон 無人機 1"
  write_images(tmp_path / "elsewhere")
  folder.mkdir(parents=True)
  for image in (tmp_path / "elsewhere").iterdir():
    (folder / image.name).symlink_to(image)
  write_text(folder / "._000001.jpg", b"resource fork")
  write_text(tmp_path / "root" / ".DS_Store", b"")
  write_json(folder / "IR_label.json", BOXES)
  (tmp_path / "root" / "link").symlink_to(folder, target_is_directory=True)
  sequences = datasets.load("antiuav410", tmp_path / "root")
  assert [s.name for s in sequences] == ["link", folder.name]
  assert all(len(list(s.frames)) == 3 for s in sequences)


def test_dangling_link_is_an_error(tmp_path):
  write_images(tmp_path / "s")
  (tmp_path / "s" / "000002.jpg").unlink()
  (tmp_path / "s" / "000002.jpg").symlink_to(tmp_path / "gone.jpg")
  write_json(tmp_path / "s" / "IR_label.json", BOXES)
  with pytest.raises(UserError, match="000002.jpg: cannot be read"):
    list(only(datasets.load("antiuav410", tmp_path)).frames)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "write, format, file", [(write_images, "antiuav410", ""), (write_video, "antiuav", "infrared.avi")])
def test_counts_differ(tmp_path, count, write, format, file):
  write(tmp_path / "s" / file, count=count)
  write_json(tmp_path / "s" / "IR_label.json", BOXES)
  with pytest.raises(UserError, match=f"IR_label.json: 3 boxes for {count} frames"):
    datasets.load(format, tmp_path)


def test_box_outside_of_the_frame(tmp_path):
  write_images(tmp_path / "s")
  write_json(tmp_path / "s" / "IR_label.json", [BOXES[0], [64, 3, 5, 5], BOXES[2]])
  with pytest.raises(UserError, match=r"IR_label.json: frame 1 has the box .* outside of the frame of 64x48"):
    datasets.load("antiuav410", tmp_path)
  write_json(tmp_path / "s" / "IR_label.json", [BOXES[0], [63, 3, 5, 5], BOXES[2]])
  datasets.load("antiuav410", tmp_path)


def test_unreadable_video(tmp_path):
  write_text(tmp_path / "s" / "infrared.mp4", b"no video")
  write_json(tmp_path / "s" / "infrared.json", BOXES)
  with pytest.raises(UserError, match="infrared.mp4: not a readable video"):
    datasets.load("antiuav", tmp_path)


def test_open_frames(tmp_path):
  write_video(tmp_path / "v" / "clip.avi")
  assert len(datasets.open_frames(tmp_path / "v" / "clip.avi")) == 3
  with pytest.raises(UserError, match="no images in this folder"):
    datasets.open_frames(tmp_path / "v")
  with pytest.raises(UserError, match="no such file or folder"):
    datasets.open_frames(tmp_path / "gone")
  with pytest.raises(UserError, match="expected a video"):
    datasets.open_frames(write_text(tmp_path / "a.txt", "1"))


@pytest.mark.parametrize("format", list(datasets.FORMATS))
def test_missing_and_empty_roots(tmp_path, format):
  with pytest.raises(UserError, match="no such folder, expected"):
    datasets.load(format, tmp_path / "gone")
  for frames in (True, False):
    with pytest.raises(UserError, match="no sequences found, expected"):
      datasets.load(format, tmp_path, frames=frames)
  (tmp_path / "empty").mkdir()
  # UAV123's sequences are annotation files: a folder is none.
  with pytest.raises(UserError, match="no sequences found" if format == "uav123" else "empty: no labels, expected"):
    datasets.load(format, tmp_path)


def test_unknown_format():
  with pytest.raises(UserError, match="'got10K', expected one of antiuav, .*, got10k, .*, plain"):
    datasets.load("got10K", ".")


def test_real_clips(data_root):
  sequences = datasets.load("antiuav", data_root / "svanstrom_ir" / "val")
  assert len(sequences) == 22 and sum(map(len, sequences)) == 6890
  assert sum("DRONE" in s.name for s in sequences) == 12
  assert all(s.visible[0] for s in sequences)
  assert sequences[0].frames[5].shape == (256, 320)
  both = datasets.load("antiuav", data_root / "svanstrom_ir", frames=False)
  assert len(both) == 243 and sum(int((~s.visible).sum()) for s in both) == 4
