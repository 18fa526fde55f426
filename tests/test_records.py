"""Packed data: written by TFDS, the same pairs as from the source, and what faults leave."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT

import small
from input_pipeline import geometry, pipeline, records
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames, ImageFiles, VideoFile
from input_pipeline.records import cutting, packing
from input_pipeline.sampling import PairSampler, anchors, needed_context
from input_pipeline.sequences import from_labels
from input_pipeline.simulator.dataset import write_dataset

SIDES = dict(template_side=small.TEMPLATE_SIDE, search_side=small.SEARCH_SIDE)
LENGTHS = {"one": 9, "two": 6}


def texture(seed: int, height: int = 256, width: int = 320) -> np.ndarray:
  noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
  smooth = cv2.GaussianBlur(noise, (0, 0), 2)
  return np.clip(120 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def source():
  """Two sequences with absent frames at the start, in the middle and at the end; targets near the frame's edges too."""
  sequences = []
  for n, (name, length) in enumerate(LENGTHS.items()):
    frames = np.stack([np.roll(texture(n), 7 * t, axis=1) for t in range(length)])
    boxes = [[5 + 30 * t, 4 + 25 * t, 10 + t, 8] for t in range(length)]
    visible = np.isin(np.arange(length), [0, 4, length - 1], invert=True)
    lookalikes = [[t, 40 + 30 * t, 4 + 25 * t, 9, 8] for t in range(n, 5)]
    sequences.append(from_labels(name, ArrayFrames(frames), boxes, visible, name, ("TS",), lookalikes=lookalikes))
  return sequences


@pytest.fixture(scope="module")
def root(source, tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("packed"))
  records.prepare(source, folder, workers=2, shards=3)
  return folder


def test_labels_come_back_as_they_were(source, root):
  for original, copy in zip(source, records.load(root), strict=True):
    assert copy.name == original.name and copy.attributes == ("TS",) and len(copy) == len(original)
    np.testing.assert_array_equal(copy.boxes, original.boxes)
    np.testing.assert_array_equal(copy.visible, original.visible)
    np.testing.assert_array_equal(copy.lookalikes, original.lookalikes)


def test_what_is_stored_is_the_surroundings_of_the_target(source, root):
  """By hand: three template windows to each side of the box's centre, as far as the frame goes; JPEG 95 errors."""
  for original, copy in zip(source, records.load(root), strict=True):
    for t, (x, y, w, h) in enumerate(anchors(original)):
      stored, frame = copy.frames.cutout(t), original.frames[t]
      reach = 3 * geometry.template_window(np.array([x, y, w, h]))[2]
      height, width = stored.image.shape
      assert stored.x <= max(0, x + w / 2 - reach) and stored.y <= max(0, y + h / 2 - reach)
      assert stored.x + width >= min(320, x + w / 2 + reach) and stored.y + height >= min(256, y + h / 2 + reach)
      assert max(width, height) < 2 * reach + 8
      part = frame[stored.y:stored.y + height, stored.x:stored.x + width]
      assert np.abs(part.astype(int) - stored.image).mean() < 1.5 and stored.mean == pytest.approx(frame.mean())


def test_packed_and_raw_give_the_same_pairs(source, root):
  """Same windows, same boxes; pixels equal up to the JPEG's error, also where windows leave the frame."""
  config = small.config().data.pairs
  config.negative = 0.4
  raw, packed = (PairSampler([s], [1.0], config, **SIDES) for s in (source, records.load(root)))
  for i in range(150):
    a, b = (pipeline.example(s, 63, 127, 1, i) for s in (raw, packed))
    for name in a:
      if name in ("template", "search"):
        difference = np.abs(a[name].astype(int) - b[name])
        assert difference.mean() < 1.5 and difference.max() <= 20, (i, name)
      else:
        np.testing.assert_array_equal(a[name], b[name])


def test_the_context_is_enough_for_the_configs_and_no_more_than_needed():
  """No window of 3000 examples, among them thin and wide targets, reaches beyond `needed_context`; some nearly do."""
  config, rng = small.config().data.pairs, np.random.default_rng(0)
  assert needed_context(config, 255 / 127) <= records.CONTEXT
  boxes = np.concatenate([rng.uniform(0, 500, (60, 2)), np.exp(rng.uniform(0, 4, (60, 2)))], 1)
  sequence = from_labels("x", None, boxes, rng.random(60) < 0.8, "x")
  for ratio_sides in ((127, 255), (127, 383)):
    config.negative, farthest = 0.5, 0.0
    sampler = PairSampler([[sequence]], [1.0], config, template_side=ratio_sides[0], search_side=ratio_sides[1])
    plan = sampler.plan(0, np.arange(3000))
    for branch in ("template", "search"):
      window = plan[f"{branch}_window"]
      own = geometry.template_window(sampler.tables.anchors[plan[f"{branch}_frame"]])
      reach = np.abs(window[:, :2] - own[:, :2]).max(1) + window[:, 2] / 2
      farthest = max(farthest, (reach / own[:, 2]).max())
    needed = needed_context(config, ratio_sides[1] / ratio_sides[0])
    assert 0.85 * needed < farthest <= needed


# --- TFDS


def test_tfds_reads_it(source, root):
  """`tfds.data_source` and, for tf.data, `tfds.load`: pixels and labels in the order of the frames."""
  found = tfds.data_source("infrared_crops", data_dir=root, split="crops")
  assert len(found) == sum(LENGTHS.values())
  stream = list(tfds.load("infrared_crops", data_dir=root, split="crops").as_numpy_iterator())
  for n, (sequence, t) in enumerate((s, t) for s in source for t in range(len(s))):
    for record in (found[n], stream[n]):
      assert record["frame"] == t and bytes(record["sequence"]).decode() == sequence.name
      np.testing.assert_array_equal(record["box"], sequence.boxes[t])
      assert record["visible"] == sequence.visible[t]
      x, y, (h, w, _) = record["x"], record["y"], record["image"].shape
      assert np.abs(sequence.frames[t][y:y + h, x:x + w] - record["image"][..., 0].astype(int)).mean() < 2.5
  part = tfds.load("infrared_crops", data_dir=root, split="crops[2:5]")
  assert [int(r["frame"]) for r in part.as_numpy_iterator()] == [2, 3, 4]


def test_it_is_sharded_and_says_what_it_is(root):
  folder = os.path.join(root, "infrared_crops", "1.0.0")
  assert sum("array_record-0000" in name for name in os.listdir(folder)) == 3
  with open(os.path.join(folder, "metadata.json")) as file:
    assert json.load(file)["fingerprint"] == records.packed_fingerprint(root)
  assert sorted(os.listdir(root)) == ["infrared_crops"]  # Nothing else is left.


# --- restart, other data, faults


def test_an_interrupted_packing_goes_on(source, tmp_path, monkeypatch):
  """What was cut before the interruption is not cut again, and the result is the same."""

  class Broken(ArrayFrames):
    def __iter__(self):
      raise KeyboardInterrupt

  broken = [source[0], dataclasses.replace(source[1], frames=Broken(np.zeros((6, 256, 320), np.uint8)))]
  with pytest.raises(KeyboardInterrupt):
    records.prepare(broken, str(tmp_path))
  with pytest.raises(UserError, match=r"no complete packed data there.*goes on when it is started again"):
    records.load(str(tmp_path))
  original, cut = cutting.cut, []
  monkeypatch.setattr(packing, "cut", lambda sequence, *rest: cut.append(sequence.name) or original(sequence, *rest))
  records.prepare(source, str(tmp_path))
  assert cut == ["two"]
  records.prepare(source, str(tmp_path))  # Done: nothing happens.
  assert cut == ["two"]
  assert records.verify(source, str(tmp_path), None)[0] < 1.5


def test_a_data_set_without_its_index_is_written_again(source, tmp_path):
  """Interrupted at the very end, then asked for with another context: nothing of the old one stays."""
  records.prepare(source, str(tmp_path), context=1.0)
  (tmp_path / "infrared_crops" / "1.0.0" / "index.npz").unlink()
  records.prepare(source, str(tmp_path), context=2.0)
  assert records.packed_context(str(tmp_path)) == 2.0
  assert records.verify(source, str(tmp_path), None)[0] < 1.5


def test_other_data_in_the_folder_are_refused(source, root):
  moved = [dataclasses.replace(source[0], boxes=source[0].boxes + 1 * source[0].visible[:, None]), source[1]]
  for sequences, context in ((moved, records.CONTEXT), (source[:1], records.CONTEXT), (source, 2.0)):
    with pytest.raises(UserError, match="packed data of another source or context"):
      records.prepare(sequences, root, context=context)
  assert records.verify(source, root)[0] < 1.5


def test_verification_finds_other_pixels_and_labels(source, root):
  inverted = [dataclasses.replace(source[0], frames=ArrayFrames(255 - source[0].frames._frames)), source[1]]
  with pytest.raises(UserError, match="of one differs from the source by"):
    records.verify(inverted, root, None)
  moved = [dataclasses.replace(source[0], boxes=source[0].boxes * 2), source[1]]
  with pytest.raises(UserError, match="the labels of one differ"):
    records.verify(moved, root)
  with pytest.raises(UserError, match="other sequences"):
    records.verify(source[:1], root)


def test_sequences_that_never_show_their_target_are_left_out(source, tmp_path):
  hidden = from_labels("hidden", ArrayFrames(np.zeros((3, 256, 320), np.uint8)), np.zeros((3, 4)), None, "hidden")
  records.prepare([hidden, source[1]], str(tmp_path))
  assert [s.name for s in records.load(str(tmp_path))] == ["two"]
  with pytest.raises(UserError, match="no sequence with a visible target"):
    records.prepare([hidden], str(tmp_path / "other"))


def test_a_folder_that_cannot_be_written_is_a_data_error(source, tmp_path):
  (tmp_path / "file").write_text("not a folder")
  with pytest.raises(UserError, match=r"file/packed: the packed data cannot be written"):
    records.prepare(source, str(tmp_path / "file" / "packed"))


def test_whole_frames_are_not_there(root):
  with pytest.raises(UserError, match="hold the surroundings of the target, not whole frames"):
    records.load(root)[0].frames[0]
  with pytest.raises(IndexError):
    records.load(root)[0].frames.cutout(99)


def test_damaged_packed_data_are_a_data_error(source, tmp_path):
  """An index that is cut off, or of another data set; a file of records that is missing."""
  records.prepare(source, str(tmp_path))
  folder = tmp_path / "infrared_crops" / "1.0.0"
  index = folder / "index.npz"
  whole = index.read_bytes()
  for data in (b"", whole[:len(whole) // 2], b"nonsense" * 50):
    index.write_bytes(data)
    with pytest.raises(UserError, match="no complete packed data there"):
      records.load(str(tmp_path))
  index.write_bytes(whole)
  with np.load(index) as file:
    arrays = dict(file)
  with open(index, "wb") as file:
    np.savez(file, **arrays | {"boxes": arrays["boxes"][:-1]})
  with pytest.raises(UserError, match="holds 15 frames, its index 14"):
    records.load(str(tmp_path))


# --- videos


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  folder, sequences = tmp_path_factory.mktemp("video"), []
  for name, length in (("a", 7), ("b", 5)):
    path = folder / f"{name}.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (120, 90), False)
    for t in range(length):
      writer.write(np.roll(texture(len(name), 90, 120), 5 * t, axis=1))
    writer.release()
    sequences.append(from_labels(name, VideoFile(path), [[40, 40, 9, 9]] * length, None, name))
  return sequences


def test_videos_are_packed_once_for_random_access(video, tmp_path, monkeypatch):
  folder = str(tmp_path)
  unpacked = records.packed(video, folder, 3.0)
  for original, copy in zip(video, unpacked, strict=True):
    for t in (4, 0, 2):  # In any order.
      stored = copy.frames.cutout(t)
      part = original.frames[t][stored.y:, stored.x:][:len(stored.image), :stored.image.shape[1]]
      assert np.abs(part.astype(int) - stored.image).mean() < 1.5
  monkeypatch.setattr(packing, "cut", lambda *_: pytest.fail("packed again"))
  records.packed(video, folder, 3.0)
  assert os.listdir(folder) == [records.fingerprint(video, 3.0)]


def test_frames_replaced_by_others_of_the_same_size_are_other_data(tmp_path):
  paths = [tmp_path / f"{t}.bmp" for t in range(3)]
  for t, path in enumerate(paths):
    cv2.imwrite(str(path), texture(t))
  sequences = [from_labels("a", ImageFiles(paths), [[30, 30, 20, 20]] * 3, None, "labels")]
  before = records.fingerprint(sequences, 3.0)
  records.prepare(sequences, str(tmp_path / "packed"))
  size = paths[1].stat().st_size
  cv2.imwrite(str(paths[1]), texture(9))
  assert paths[1].stat().st_size == size
  assert records.fingerprint(sequences, 3.0) != before
  with pytest.raises(UserError, match="holds packed data of another source"):
    records.prepare(sequences, str(tmp_path / "packed"))


def test_two_that_pack_into_one_folder_wait_for_each_other(tmp_path, monkeypatch):
  """Two trainings that start together pack the same videos."""
  rng = np.random.default_rng(0)
  frames = [ArrayFrames(rng.integers(0, 255, (6, 90, 120)).astype(np.uint8)) for _ in range(3)]
  sequences = [from_labels(str(n), one, [[30, 30, 9, 9]] * 6, None, "labels") for n, one in enumerate(frames)]
  inside, most = [], []
  cut_all = packing._cut_all

  def slowly(*arguments):
    inside.append(1)
    most.append(len(inside))
    time.sleep(0.5)
    cut_all(*arguments)
    inside.pop()

  monkeypatch.setattr(packing, "_cut_all", slowly)
  with ThreadPoolExecutor(3) as pool:
    list(pool.map(lambda _: records.prepare(sequences, str(tmp_path)), range(3)))
  assert most == [1]
  assert len(records.load(str(tmp_path))) == 3


def test_data_packed_by_an_earlier_version_are_still_read(tmp_path, monkeypatch):
  paths = [tmp_path / f"{t}.bmp" for t in range(3)]
  for t, path in enumerate(paths):
    cv2.imwrite(str(path), texture(t))
  sequences = [from_labels("a", ImageFiles(paths), [[30, 30, 20, 20]] * 3, None, "labels")]
  with monkeypatch.context() as patch:
    patch.setattr(packing, "fingerprint", cutting.fingerprint_by_sizes)
    records.prepare(sequences, str(tmp_path / "packed"))
  records.prepare(sequences, str(tmp_path / "packed"))
  packed_as = records.packed_fingerprint(str(tmp_path / "packed"))
  assert packed_as == cutting.fingerprint_by_sizes(sequences, records.CONTEXT) != records.fingerprint(sequences, 3.0)
  with pytest.raises(UserError, match="holds packed data of another source"):
    records.prepare(sequences, str(tmp_path / "packed"), context=2.5)


def test_the_fingerprint_follows_labels_context_and_files(video):
  before = records.fingerprint(video, 3.0)
  assert before == records.fingerprint(video, 3.0) != records.fingerprint(video, 3.5)
  other = [from_labels("a", video[0].frames, video[0].boxes + 1, None, "a"), video[1]]
  assert records.fingerprint(other, 3.0) != before
  with open(video[0].frames.path, "ab") as file:
    file.write(b"more")
  assert records.fingerprint(video, 3.0) != before


def test_only_videos_are_packed_unless_all_are_asked_for(tmp_path):
  path = tmp_path / "0.png"
  cv2.imwrite(str(path), texture(0))
  sequences = [from_labels("files", ImageFiles([path]), [[50, 50, 5, 5]], None, "files")]
  assert records.packed(sequences, str(tmp_path / "records"), 3.0) == sequences
  assert not (tmp_path / "records").exists()
  assert records.packed(sequences, str(tmp_path / "records"), 3.0, all_of_them=True)[0].frames.cutout(0).x == 20


def test_a_video_that_ends_early_is_a_data_error(video, tmp_path):
  frames = VideoFile(video[1].frames.path, num_frames=9)
  sequence = from_labels("short", frames, [[10, 10, 9, 9]] * 9, None, "labels")
  with pytest.raises(UserError, match=r"b\.avi: the video ends after 5 frames, 9 were expected"):
    records.packed([sequence], str(tmp_path), 3.0)


# --- the script


def script(*arguments):
  return subprocess.run([sys.executable, str(ROOT / "scripts" / "prepare_data.py"), *arguments], capture_output=True,
                        text=True)


def test_the_script_packs_and_verifies(tmp_path):
  write_dataset(tmp_path / "data", 2, 5, seed=0, width=96, height=80)
  options = ["--format=antiuav410", f"--root={tmp_path / 'data'}", f"--out={tmp_path / 'out'}", "--workers=1"]
  done = script(*options)
  assert done.returncode == 0, done.stderr
  assert "10 frames in" in done.stdout and "all labels equal" in done.stdout
  assert records.packed_fingerprint(str(tmp_path / "out")) in done.stdout
  failed = script(*options, "--context=2.5")
  assert failed.returncode == 1 and "Traceback" not in failed.stderr
  assert "error:" in failed.stderr and "another source or context" in failed.stderr
