"""Crops, augmentation, packed frames and the stream of batches."""

import itertools
import os

import cv2
import numpy as np
import pytest

import small
from input_pipeline import crops, pipeline, records
from input_pipeline.augment import augment_pair
from input_pipeline.errors import DataError
from input_pipeline.frames import ArrayFrames, ImageFiles, VideoFile
from input_pipeline.sampling import PairSampler
from input_pipeline.sequences import from_labels

SIDES = dict(template_side=small.TEMPLATE_SIDE, search_side=small.SEARCH_SIDE)


def texture(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
  noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
  smooth = cv2.GaussianBlur(noise, (0, 0), 3)
  return np.clip(120 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


# --- crops


def bilinear(frame, x, y):
  """The grey level at pixel-index coordinates: from the four pixels around, those outside having the frame's mean."""
  mean, total = frame.mean(dtype=np.float64), 0.0
  for row in (int(np.floor(y)), int(np.floor(y)) + 1):
    for column in (int(np.floor(x)), int(np.floor(x)) + 1):
      inside = 0 <= row < frame.shape[0] and 0 <= column < frame.shape[1]
      total += (1 - abs(y - row)) * (1 - abs(x - column)) * (float(frame[row, column]) if inside else mean)
  return total


@pytest.mark.parametrize("window", [
    (60.0, 45.0, 31.0),  # Inside.
    (57.3, 41.9, 24.6),
    (3.2, 80.1, 50.7),  # Over two edges.
    (60.0, 45.0, 300.5),  # Larger than the frame.
    (-10.0, 20.0, 30.0),
    (60.4, 30.2, 9.5),  # Magnified.
])
def test_crop_equals_bilinear_by_hand(window):
  frame, out_side = texture(0), 31
  found = crops.crop(frame, np.array(window), out_side)
  assert found.shape == (out_side, out_side) and found.dtype == np.float32
  x, y, side = window
  for row, column in itertools.product(range(0, out_side, 3), range(0, out_side, 3)):
    # Crop pixel i covers [i, i+1) of out_side; in the frame, pixel i's centre is at i + 1/2.
    frame_x = x + ((column + 0.5) / out_side - 0.5) * side - 0.5
    frame_y = y + ((row + 0.5) / out_side - 0.5) * side - 0.5
    assert found[row, column] == pytest.approx(bilinear(frame, frame_x, frame_y), abs=0.05), (row, column)


def test_crop_beyond_the_frame_is_its_mean():
  frame = texture(1)
  np.testing.assert_allclose(crops.crop(frame, np.array([500.0, -300.0, 40.0]), 31), frame.mean(), atol=1e-3)


def test_windows_follow_the_siamese_convention():
  """p = (w+h)/2, side = sqrt((w+p)(h+p)): twice the side of a square target."""
  np.testing.assert_allclose(crops.template_window([10, 20, 30, 30]), [25, 35, 60])
  w, h = 12.0, 40.0
  np.testing.assert_allclose(crops.template_window([[0, 0, w, h]])[0, 2], np.sqrt((w + 26) * (h + 26)))


def test_boxes_map_where_the_pixels_go():
  """In a frame whose grey levels are coordinates, the crop shows at the mapped box's sides the box's own sides."""
  box, window, out_side = np.array([37.0, 22.0, 31.0, 18.0]), np.array([50.3, 33.1, 70.0]), 141
  left, top, right, bottom = crops.to_crop(box, window, out_side)
  ramps = np.arange(120, dtype=np.uint8)
  columns = crops.crop(np.broadcast_to(ramps, (90, 120)).copy(), window, out_side)
  rows = crops.crop(np.broadcast_to(ramps[:90, None], (90, 120)).copy(), window, out_side)
  at = lambda profile, position: np.interp(position, np.arange(out_side) + 0.5, profile) + 0.5
  found = at(columns[70], left), at(rows[:, 70], top), at(columns[70], right), at(rows[:, 70], bottom)
  np.testing.assert_allclose(found, (37, 22, 37 + 31, 22 + 18), atol=0.05)
  many = crops.to_crop(np.stack([box, box]), np.stack([window, window]), out_side)
  np.testing.assert_allclose(many, [(left, top, right, bottom)] * 2)


# --- augmentation


def no_augmentation(**some):
  config = small.config().data.augment
  for name in config:
    config[name] = some.get(name, 0.0)
  return config


def crops_and_box():
  return texture(2, 63, 63).astype(np.float32), texture(3, 127, 127).astype(np.float32), np.array([20.0, 30, 50, 71])


def test_augmentation_depends_on_its_seed_only():
  config = small.config().data.augment
  runs = [augment_pair(*crops_and_box(), seed, config) for seed in (5, 5, 6)]
  for a, b in zip(runs[0], runs[1]):
    np.testing.assert_array_equal(a, b)
  assert any(not np.array_equal(a, b) for a, b in zip(runs[0], runs[2]))


def test_no_augmentation_changes_nothing():
  for a, b in zip(augment_pair(*crops_and_box(), 0, no_augmentation()), crops_and_box()):
    np.testing.assert_array_equal(a, b)


def test_flips_map_the_box():
  template, search, box = crops_and_box()
  search[:] = 50
  search[30:71, 20:50] = 200  # Exactly the box.
  flipped_template, flipped, (left, top, right, bottom) = augment_pair(
      template, search, box, 0, no_augmentation(flip=1.0))
  np.testing.assert_array_equal(flipped_template, template[:, ::-1])
  bright = np.argwhere(flipped == 200)
  np.testing.assert_array_equal([*bright.min(0)[::-1], *(bright.max(0)[::-1] + 1)], [left, top, right, bottom])
  assert (right - left, bottom - top) == (30, 41)


def test_polarity_inverts_both():
  template, search, box = crops_and_box()
  found = augment_pair(template, search, box, 0, no_augmentation(polarity=1.0))
  np.testing.assert_array_equal(found[0], 255 - template)
  np.testing.assert_array_equal(found[1], 255 - search)
  np.testing.assert_array_equal(found[2], box)


@pytest.mark.parametrize("effect", [n for n in small.config().data.augment if n not in ("flip", "polarity")])
def test_effects_keep_shape_and_range(effect):
  changed = 0
  for seed in range(8):
    template, search, box = augment_pair(*crops_and_box(), seed, no_augmentation(**{effect: 1.0}))
    for image, side in ((template, 63), (search, 127)):
      assert image.shape == (side, side) and image.dtype == np.float32
      assert image.min() >= 0 and image.max() <= 255 and np.isfinite(image).all()
    np.testing.assert_array_equal(box, crops_and_box()[2])
    changed += not np.array_equal(search, crops_and_box()[1])
    assert np.corrcoef(search.ravel(), crops_and_box()[1].ravel())[0, 1] > 0.7  # Still the same scene.
  assert changed == 8


# --- examples and batches


@pytest.fixture(scope="module")
def sampler():
  """Two sequences in memory whose target is a bright disc on texture."""
  sequences = []
  for name, seed in (("one", 0), ("two", 1)):
    background, frames, boxes = texture(seed, 200, 240) // 2, [], []
    for t in range(12):
      frame = background.copy()
      cv2.circle(frame, (60 + 8 * t, 100 + 3 * t), 9, 255, -1)
      frames.append(frame)
      boxes.append([60 + 8 * t - 9, 100 + 3 * t - 9, 19, 19])
    visible = np.arange(12) != 5
    sequences.append(from_labels(name, ArrayFrames(np.stack(frames)), boxes, visible, name))
  return PairSampler([sequences], [1.0], small.config().data.pairs, **SIDES)


def plain_data():
  config = small.config().data
  config.augment = no_augmentation()
  return config


def test_examples_hold_what_their_labels_say(sampler):
  """Without augmentation the target's disc is bright exactly inside the box that the labels give."""
  seen = {0.0: 0, 1.0: 0}
  for i in range(60):
    example = pipeline.example(sampler, plain_data(), 63, 127, 0, i)
    assert example["template"].shape == (63, 63, 1) and example["template"].dtype == np.uint8
    assert example["search"].shape == (127, 127, 1) and example["search"].dtype == np.uint8
    assert {example[k].dtype for k in ("template_wh", "search_box_ltrb", "present")} == {np.dtype("float32")}
    present = float(example["present"])
    seen[present] += 1
    rows = np.argwhere(example["template"][..., 0] > 200)
    np.testing.assert_allclose(rows.min(0) + rows.max(0) + 1, (63, 63), atol=3)  # In the middle of the template.
    np.testing.assert_allclose(np.ptp(rows, axis=0) + 1, example["template_wh"][::-1], atol=3)
    rows = np.argwhere(example["search"][..., 0] > 200)
    if present:
      box = example["search_box_ltrb"]
      inside = (rows + 0.5 > box[1::-1] - 1).all(1) & (rows + 0.5 < box[:1:-1] + 1).all(1)
      assert len(rows) and inside.all()
    else:
      assert not example["search_box_ltrb"].any() and (len(rows) == 0 or sampler(0, i).search[1] == 5)
  assert min(seen.values()) > 3


def take(sampler, count, **options):
  options = dict(seed=3, batch_size=8, **SIDES) | options
  return list(itertools.islice(pipeline.batches(sampler, small.config().data, **options), count))


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key])


@pytest.fixture(scope="module")
def stream(sampler):
  return take(sampler, 4)


def test_batches_are_the_examples_in_order(sampler, stream):
  config = small.config().data
  for n in (0, 3):
    examples = [pipeline.example(sampler, config, 63, 127, 3, 8 * n + i) for i in range(8)]
    assert_equal(stream[n], {key: np.stack([e[key] for e in examples]) for key in examples[0]})


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_batches(sampler, stream, hosts):
  """Disjoint slices that together are what one host would see."""
  shares = [take(sampler, 2, host=h, num_hosts=hosts) for h in range(hosts)]
  for n in range(2):
    assert all(len(share[n]["present"]) == 8 // hosts for share in shares)
    assert_equal(stream[n], {key: np.concatenate([share[n][key] for share in shares]) for key in stream[n]})


def test_resuming_gives_the_same_batches(sampler, stream):
  for a, b in zip(take(sampler, 2, start_step=2), stream[2:]):
    assert_equal(a, b)
  assert take(sampler, 1, start_step=10**9)[0]["template"].shape == (8, 63, 63, 1)


def test_workers_do_not_change_the_order(sampler, stream):
  config = small.config().data
  config.workers = 1
  assert_equal(next(pipeline.batches(sampler, config, seed=3, batch_size=8, **SIDES)), stream[0])


def test_another_seed_gives_other_batches(sampler, stream):
  assert not np.array_equal(take(sampler, 1, seed=4)[0]["search"], stream[0]["search"])


def test_a_batch_that_hosts_cannot_share_is_refused(sampler):
  with pytest.raises(ValueError, match=r"8 cannot be shared equally by 3 hosts"):
    pipeline.batches(sampler, small.config().data, seed=0, batch_size=8, num_hosts=3, **SIDES)


def test_an_unreadable_frame_is_a_data_error_that_names_it(tmp_path):
  """Also through tf.data, which knows only its own errors."""
  paths = [tmp_path / f"{t}.jpg" for t in range(3)]
  for t, path in enumerate(paths):
    cv2.imwrite(str(path), texture(t))
  data = paths[1].read_bytes()
  paths[1].write_bytes(data[:len(data) // 2])
  sequence = from_labels("cut", ImageFiles(paths), [[30, 30, 20, 20]] * 3, None, "labels")
  sampler = PairSampler([[sequence]], [1.0], small.config().data.pairs, **SIDES)
  with pytest.raises(DataError, match=r"1\.jpg: not a readable image"):
    take(sampler, 3)


# --- packed frames


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  """Two videos with labels."""
  folder, sequences = tmp_path_factory.mktemp("video"), []
  for name, length in (("a", 7), ("b", 5)):
    path = folder / f"{name}.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (120, 90), False)
    for t in range(length):
      writer.write(np.roll(texture(len(name)), 5 * t, axis=1))
    writer.release()
    sequences.append(from_labels(name, VideoFile(path), [[10, 10, 9, 9]] * length, None, name))
  return sequences


@pytest.fixture(scope="module")
def packed(video, tmp_path_factory):
  folder = tmp_path_factory.mktemp("packed")
  return folder, records.with_random_access(video, str(folder))


def test_packed_frames_equal_the_video_but_for_jpeg(video, packed):
  """JPEG of quality 95: on average within 1 grey level, nowhere more than 12."""
  _, unpacked = packed
  for original, copy in zip(video, unpacked):
    assert copy.name == original.name and len(copy.frames) == len(original.frames)
    np.testing.assert_array_equal(copy.boxes, original.boxes)
    for a, b in zip(original.frames, copy.frames):
      assert b.dtype == np.uint8 and b.shape == a.shape
      difference = np.abs(a.astype(int) - b)
      assert difference.mean() < 1 and difference.max() <= 12
    for t in (4, 0, 2):  # In any order.
      np.testing.assert_array_equal(copy.frames[t], list(copy.frames)[t])
  with pytest.raises(IndexError):
    unpacked[0].frames[7]


def test_packing_happens_once(video, packed, monkeypatch):
  folder, unpacked = packed
  monkeypatch.setattr(records, "pack", lambda *_: pytest.fail("packed again"))
  again = records.with_random_access(video, str(folder))
  np.testing.assert_array_equal(again[1].frames[3], unpacked[1].frames[3])
  assert sorted(os.listdir(folder)) == [records.fingerprint(video)]


def test_fingerprint_follows_labels_and_videos(video):
  before = records.fingerprint(video)
  other = [from_labels("a", video[0].frames, video[0].boxes + 1, None, "a"), video[1]]
  assert records.fingerprint(other) != before == records.fingerprint(video)
  stat = os.stat(video[0].frames.path)
  os.utime(video[0].frames.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
  try:
    assert records.fingerprint(video) != before
  finally:
    os.utime(video[0].frames.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_image_files_are_not_packed(tmp_path):
  path = tmp_path / "0.png"
  cv2.imwrite(str(path), texture(0))
  sequences = [from_labels("files", ImageFiles([path]), [[1, 1, 5, 5]], None, "files")]
  assert records.with_random_access(sequences, str(tmp_path / "records")) == sequences
  assert not (tmp_path / "records").exists()


def test_packed_frames_of_other_length_are_refused(video, packed):
  folder, _ = packed
  with pytest.raises(DataError, match="holds 12 frames, expected 7; delete the folder"):
    records.unpack(video[:1], os.path.join(folder, records.fingerprint(video)))


def test_a_folder_that_cannot_be_written_is_a_data_error(video, tmp_path):
  blocked = tmp_path / "file"
  blocked.write_text("not a folder")
  with pytest.raises(DataError, match="cannot write the packed frames"):
    records.with_random_access(video, str(blocked / "records"))


def test_a_video_that_ends_early_is_a_data_error(video, tmp_path):
  frames = VideoFile(video[0].frames.path, num_frames=9)
  sequence = from_labels("short", frames, [[10, 10, 9, 9]] * 9, None, "labels")
  with pytest.raises(DataError, match=r"a\.avi: the video ends after 7 frames, 9 were expected"):
    records.with_random_access([sequence], str(tmp_path))
  assert all(name.endswith(".partial") for name in os.listdir(tmp_path))  # Nothing that looks complete.
