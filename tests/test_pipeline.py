"""Crops, examples and the stream of batches."""

import itertools

import cv2
import numpy as np
import pytest

import small
from input_pipeline import crops, geometry, pipeline
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames, ImageFiles
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
  np.testing.assert_allclose(geometry.template_window(np.array([10, 20, 30, 30])), [25, 35, 60])
  w, h = 12.0, 40.0
  np.testing.assert_allclose(geometry.template_window(np.array([[0, 0, w, h]]))[0, 2], np.sqrt((w + 26) * (h + 26)))


def test_boxes_map_where_the_pixels_go():
  """In a frame whose grey levels are coordinates, the crop shows at the mapped box's sides the box's own sides."""
  box, window, out_side = np.array([37.0, 22.0, 31.0, 18.0]), np.array([50.3, 33.1, 70.0]), 141
  left, top, right, bottom = geometry.to_crop(box, window, out_side)
  ramps = np.arange(120, dtype=np.uint8)
  columns = crops.crop(np.broadcast_to(ramps, (90, 120)).copy(), window, out_side)
  rows = crops.crop(np.broadcast_to(ramps[:90, None], (90, 120)).copy(), window, out_side)

  def at(profile, position):
    return np.interp(position, np.arange(out_side) + 0.5, profile) + 0.5

  found = at(columns[70], left), at(rows[:, 70], top), at(columns[70], right), at(rows[:, 70], bottom)
  np.testing.assert_allclose(found, (37, 22, 37 + 31, 22 + 18), atol=0.05)
  many = geometry.to_crop(np.stack([box, box]), np.stack([window, window]), out_side)
  np.testing.assert_allclose(many, [(left, top, right, bottom)] * 2)


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


def test_examples_hold_what_their_labels_say(sampler):
  """The target's disc is bright exactly inside the box that the labels give."""
  seen = {0.0: 0, 1.0: 0}
  for i in range(60):
    example = pipeline.example(sampler, 63, 127, 0, i)
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
      _, t = sampler.locate(sampler.plan(0, [i])["search_frame"][0])
      assert not example["search_box_ltrb"].any() and (len(rows) == 0 or t == 5)
  assert min(seen.values()) > 3


def take(sampler, count, **options):
  options = dict(seed=3, batch_size=8, **SIDES) | options
  return list(itertools.islice(pipeline.batches(sampler, small.config().data, **options), count))


def assert_equal(a, b, levels=0):
  """Equal, the pixels within so many grey levels."""
  assert a.keys() == b.keys()
  for key in a:
    assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
    allowed = levels if key in ("template", "search") else 0
    assert np.abs(a[key].astype(np.int64) - b[key].astype(np.int64)).max() <= allowed if allowed else (
        np.array_equal(a[key], b[key])), key


@pytest.fixture(scope="module")
def stream(sampler):
  return take(sampler, 4)


def assert_examples(sampler, batches):
  """The batches are the examples in order; TensorFlow's pixels are OpenCV's within a grey level."""
  for n, batch in enumerate(batches):
    examples = [pipeline.example(sampler, 63, 127, 3, 8 * n + i) for i in range(8)]
    assert_equal(batch, {key: np.stack([e[key] for e in examples]) for key in examples[0]}, levels=1)


def test_batches_are_the_examples_in_order(sampler, stream):
  assert_examples(sampler, stream)


@pytest.mark.parametrize("kind", ["gray.jpg", "colour.jpg", "gray.png"])
def test_image_files_are_read_as_they_are_stored(kind, tmp_path):
  """JPEGs are decoded in part, and whole where a window leaves the frame: the targets are near its edges."""
  suffix, sequences = kind.split(".")[1], []
  for n, (x, y) in enumerate([(8, 9), (100, 60), (185, 135)]):
    paths = []
    for t in range(4):
      paths.append(tmp_path / f"{n}_{t}.{suffix}")
      frame = texture(10 * n + t, 150, 200)
      if kind.startswith("colour"):
        frame = np.stack([frame, np.roll(frame, 3, 0), 255 - frame], -1)
      cv2.imwrite(str(paths[-1]), frame)
    sequences.append(from_labels(str(n), ImageFiles(paths), [[x, y, 12 + 2 * n, 10]] * 4, None, "labels"))
  sampler = PairSampler([sequences], [1.0], small.config().data.pairs, **SIDES)
  windows = sampler.plan(3, range(48))["search_window"]
  outside = [min(x - s / 2, y - s / 2, 200 - x - s / 2, 150 - y - s / 2) < 0 for x, y, s in windows]
  assert 5 < sum(outside) < 43
  assert_examples(sampler, take(sampler, 6))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_batches(sampler, stream, hosts):
  """Disjoint slices that together are what one host would see."""
  shares = [take(sampler, 2, host=h, num_hosts=hosts) for h in range(hosts)]
  for n in range(2):
    assert all(len(share[n]["present"]) == 8 // hosts for share in shares)
    assert_equal(stream[n], {key: np.concatenate([share[n][key] for share in shares]) for key in stream[n]})


def test_resuming_gives_the_same_batches(sampler, stream):
  for a, b in zip(take(sampler, 2, start_step=2), stream[2:], strict=True):
    assert_equal(a, b)
  assert take(sampler, 1, start_step=5 * 10**8)[0]["template"].shape == (8, 63, 63, 1)


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
  with pytest.raises(UserError, match=r"1\.jpg: not a readable image"):
    take(sampler, 3)
