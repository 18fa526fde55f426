"""Labels that are missing, or not what they are taken for: what is refused, what is suspected, and what is named."""

import cv2
import numpy as np
import pytest

from dataset_files import BOXES, LAYOUTS, write_images, write_json, write_text, write_video
from input_pipeline import datasets, units
from input_pipeline.datasets import contents, suspicions
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames, ImageFiles, VideoFile

SIZE = (64, 48)


def table(boxes):
  return "".join(",".join(f"{value:.6f}" for value in box) + "\n" for box in boxes)


def shares(boxes):
  return np.array(boxes, float) / [*SIZE, *SIZE]


# --- units


def test_shares_of_the_frame_are_told_from_pixels():
  assert units.is_normalised(shares(BOXES)) and units.is_normalised([[0, 0, 0, 0], [0.2, 0.3, 0.1, 1]])
  assert units.is_normalised([[np.nan] * 4, [0.5, 0.5, 0.01, 0.02]])
  for pixels in (BOXES, [[0, 0, 1, 1]], [[0.5, 0.5, 1.5, 0.5]], [[0.2, 0.3, 0.1, 0.1], [3, 1, 1, 1]], [[0, 0, 0, 0]],
                 [], [[np.nan] * 4], [[np.inf, 0.1, 0.1, 0.1]]):
    assert not units.is_normalised(pixels)


def _with_shares(format, folder):
  """A sequence of `format` in a root whose labels are shares of the frame."""
  if format in ("antiuav", "antiuav410", "cst_antiuav"):
    write_images(folder / "s")
    write_json(folder / "s" / "IR_label.json", shares(BOXES).tolist(), [1, 1, 1])
    return folder
  if format == "plain":
    write_images(folder / "s")
    write_text(folder / "s" / "groundtruth.txt", table(shares(BOXES)))
    return folder
  root = LAYOUTS[format](folder)
  for path in folder.rglob("*.txt"):  # Every table of boxes.
    lines = path.read_text().splitlines()
    if lines and len(lines[0].replace("\t", ",").replace(" ", ",").split(",")) == 4:
      path.write_text(table([[0.2, 0.3, 0.1, 0.1]] * len(lines)))
  return root


@pytest.mark.parametrize("format", list(datasets.FORMATS))
def test_shares_of_the_frame_are_refused_in_every_format(tmp_path, format):
  """Also where a format counts pixels from 1, which makes other numbers of them."""
  root = _with_shares(format, tmp_path)
  for frames in (True, False):
    with pytest.raises(UserError, match=r"all boxes are shares of the frame \(normalised, 0 to 1\), expected x,y,w,h"):
      datasets.load(format, root, frames=frames)
  assert any("shares of the frame" in error for one in datasets.check(format, root).sequences for error in one.errors)


def test_corners_are_suspected(tmp_path):
  rng = np.random.default_rng(0)
  centre = np.cumsum(rng.normal(0, 3, (200, 2)), axis=0) % [300, 240] + 10
  wh = np.tile([9.0, 6.0], (200, 1))
  frame_wh = np.tile([320, 256], (200, 1))
  assert suspicions.are_corners(np.concatenate([centre - wh / 2, centre + wh / 2], 1), frame_wh)
  assert not suspicions.are_corners(np.concatenate([centre - wh / 2, wh], 1), frame_wh)
  assert not suspicions.are_corners(np.zeros((0, 4)), frame_wh[:0])
  write_images(tmp_path / "s")
  write_text(tmp_path / "s" / "groundtruth.txt", "30,25,44,40\n31,25,45,40\n32,26,46,41\n")
  (report,) = datasets.check("plain", tmp_path).sequences
  assert any("the boxes look like corners x1,y1,x2,y2, expected x,y,w,h" in text for text in report.warnings)


def test_real_and_simulated_labels_are_not_suspected(data_root):
  sequences = datasets.load("antiuav", data_root / "svanstrom_ir" / "val")
  reaches = []
  for sequence in sequences:
    boxes = sequence.boxes[sequence.visible].astype(np.float64)
    assert not suspicions.are_corners(boxes, np.tile(sequence.shape.wh, (len(boxes), 1)))
    reaches.append(((boxes[:, :2] + boxes[:, 2:]) / sequence.shape.wh).max(axis=0))
  assert suspicions.confined(reaches) is None
  assert suspicions.confined([reach / 2 for reach in reaches]) is not None


def test_labels_of_smaller_frames_are_suspected_in_the_whole_data_set(tmp_path):
  for name in "abcde":
    write_images(tmp_path / name)
    write_text(tmp_path / name / "groundtruth.txt", "10,9,6,4\n20,16,6,4\n22,17,6,4\n")
  report = datasets.check("plain", tmp_path)
  assert report.num_errors == 0 and report.num_warnings == 1
  assert "leaves the left 44 % and the upper 44 % of its frames; are the labels in pixels" in report.lines()[0]
  write_text(tmp_path / "c" / "groundtruth.txt", "10,9,6,4\n40,30,6,4\n42,30,6,4\n")
  assert datasets.check("plain", tmp_path).num_warnings == 0


def test_boxes_outside_of_most_frames_raise_the_question_of_the_size(tmp_path):
  write_images(tmp_path / "s")
  write_text(tmp_path / "s" / "groundtruth.txt", "10,9,6,4\n100,16,6,4\n120,17,6,4\n")
  (report,) = datasets.check("plain", tmp_path).sequences
  assert any("2 frames have a box outside of the frame" in text and "for frames of this size?" in text
             for text in report.errors)


def test_a_target_at_the_border_is_inside_as_far_as_it_overlaps(tmp_path):
  """Its centre lies outside; one pixel column is left."""
  write_images(tmp_path / "s")
  write_text(tmp_path / "s" / "groundtruth.txt", "-8,9,9,4\n10,45,6,9\n63,17,6,4\n")
  assert len(datasets.load("plain", tmp_path)) == 1 and datasets.check("plain", tmp_path).num_errors == 0
  write_text(tmp_path / "s" / "groundtruth.txt", "-9,9,9,4\n10,45,6,9\n63,17,6,4\n")
  assert datasets.check("plain", tmp_path).num_errors == 1
  with pytest.raises(UserError, match="frame 0 has the box .* outside of the frame of 64x48 pixels"):
    datasets.load("plain", tmp_path)


# --- labels that are not found


@pytest.mark.parametrize("file, named", [
    ("annotations.xml", "annotations.xml is not read as labels"), ("gt.txt", "gt.txt is not read as labels"),
    ("instances.json", "instances.json is not read as labels"),
    ("labels/000001.txt", "labels/000001.txt is not read as labels"),
    ("../annotations.xml", r"\.\./annotations.xml is not read as labels"),
    ("../labels/s.csv", r"\.\./labels/s.csv is not read as labels"),
    ("IR_label.json", "its labels can be read as --format antiuav or antiuav410 or cst_antiuav"),
    ("groundtruth_rect.txt", "its labels can be read as --format .*otb"),
])
def test_files_that_look_like_labels_are_named(tmp_path, file, named):
  write_images(tmp_path / "data" / "s")
  write_images(tmp_path / "data" / "t")
  write_text(tmp_path / "data" / "t" / "groundtruth.txt", "10,12,8,6\n" * 3)
  path = tmp_path / "data" / "s" / file
  if file == "IR_label.json":
    write_json(path, BOXES)
  else:
    write_text(path, "11,13,8,6\n" * 3)
  _, errors = datasets.load_readable("plain", tmp_path / "data")
  with pytest.raises(UserError, match=rf"s: no labels, expected .*groundtruth.txt with one x,y,w,h per frame; {named}"):
    raise errors["s"]
  warnings = [text for one in datasets.check("plain", tmp_path / "data").sequences for text in one.warnings]
  assert any("no labels" in text and "only the frames are checked" in text for text in warnings)


def test_what_is_no_label_file_is_not_named(tmp_path):
  write_images(tmp_path / "s")
  for name in ("README.txt", "notes.md", "LICENSE.txt"):
    write_text(tmp_path / "s" / name, "of the data set")
  with pytest.raises(UserError, match=r"no labels, expected \S+groundtruth.txt with one x,y,w,h per frame$"):
    datasets.load("plain", tmp_path)


def test_a_label_file_for_each_frame_is_one_entry(tmp_path):
  write_images(tmp_path / "s")
  for t in range(30):
    write_text(tmp_path / "s" / "labels" / f"{t:06d}.txt", "0 0.1 0.2 0.1 0.1")
  with pytest.raises(UserError, match=r"; labels/000000.txt \(and 29 more\) is not read as labels"):
    datasets.load("plain", tmp_path)


def test_the_wrong_format_is_told_where_another_finds_sequences(tmp_path):
  write_video(tmp_path / "clip.avi")
  write_text(tmp_path / "clip.txt", "10,12,8,6\n" * 3)
  with pytest.raises(UserError, match="no sequences found, expected .*; sequences with labels .* as --format plain"):
    datasets.load("antiuav", tmp_path)


# --- loading what can be loaded


def test_broken_sequences_do_not_keep_the_others_from_being_loaded(tmp_path):
  rows = "10,12,8,6\n" * 3
  for name in ("good", "outside", "numbers", "count", "unlabelled", "picture", "shares"):
    write_images(tmp_path / name)
    write_text(tmp_path / name / "groundtruth.txt", rows)
  write_text(tmp_path / "outside" / "groundtruth.txt", "90,12,8,6\n" + rows[10:])
  write_text(tmp_path / "numbers" / "groundtruth.txt", "10,12,8\n" + rows[10:])
  write_text(tmp_path / "count" / "groundtruth.txt", rows[10:])
  (tmp_path / "unlabelled" / "groundtruth.txt").unlink()
  (tmp_path / "picture" / "000001.jpg").write_bytes(b"\xff\xd8")
  write_text(tmp_path / "shares" / "groundtruth.txt", table(shares(BOXES)))
  (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
  sequences, errors = datasets.load_readable("plain", tmp_path)
  assert [sequence.name for sequence in sequences] == ["good"]
  for name, expected in {"outside": "outside of the frame", "numbers": "line 1", "count": "2 boxes for 3 frames",
                         "unlabelled": "no labels", "picture": "not a readable image", "shares": "shares of the frame",
                         "gone": "a link to .*nowhere"}.items():
    assert isinstance(errors[name], UserError)
    with pytest.raises(UserError, match=expected):
      raise errors.pop(name)
  assert not errors
  assert [one.name for one in datasets.load_matching("plain", tmp_path, "goo")] == ["good"]  # The others are not asked.
  with pytest.raises(UserError):
    datasets.load("plain", tmp_path)


def test_where_nothing_can_be_found_nothing_can_be_loaded(tmp_path):
  write_images(tmp_path / "s")
  for arguments in (("nonsense", tmp_path), ("plain", tmp_path / "gone"), ("plain", tmp_path, "other")):
    with pytest.raises(UserError):
      datasets.load_readable(*arguments)


# --- what frames are made of


def test_a_digest_is_of_bytes_kinds_and_order(tmp_path):
  picture = np.arange(48, dtype=np.uint8).reshape(6, 8)
  for name in ("a.png", "b.png", "again.png"):
    cv2.imwrite(str(tmp_path / name), picture + (name == "b.png"))
  (tmp_path / "a.jpg").write_bytes((tmp_path / "a.png").read_bytes())
  of = lambda *names: contents.digest(ImageFiles([tmp_path / name for name in names]))
  assert of("a.png", "b.png") == of("again.png", "b.png") != of("b.png", "a.png")
  assert len({of("a.png"), of("b.png"), of("a.jpg"), of("a.png", "a.png"), of("a.png", "b.png")}) == 5
  split = tmp_path / "split"  # The same bytes in a row, parted elsewhere.
  for number, content in enumerate((b"ab", b"c", b"a", b"bc")):
    write_text(split / f"{number}.png", content)
  assert of("split/0.png", "split/1.png") != of("split/2.png", "split/3.png")
  write_video(tmp_path / "v.avi")
  assert contents.digest(VideoFile(tmp_path / "v.avi")) == contents.digest(VideoFile(tmp_path / "v.avi"))
  assert contents.digest(ArrayFrames(np.zeros((2, 4, 4), np.uint8))) is None
  with pytest.raises(UserError, match="gone.png: cannot be read"):
    of("gone.png")
