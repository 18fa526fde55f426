"""Augmentation inside the step."""

import cv2
import jax
import numpy as np
import pytest

import small
from siamdff_jax.feeding.augment import _compressed, _equalized, augment


def texture(seed: int, side: int) -> np.ndarray:
  noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
  smooth = cv2.GaussianBlur(noise, (0, 0), 3)
  return np.clip(120 + 30 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def config(**some):
  found = small.config().data.augment
  for name in found:
    found[name] = some.get(name, 0.0)
  return found


def batch(size: int = 4, first: int = 0) -> dict:
  """Textures; in the search crop the target's box, on odd examples only, is white."""
  template = np.stack([texture(i, 63) for i in range(size)])
  search = np.stack([texture(50 + i, 127) for i in range(size)])
  present = (np.arange(size) % 2).astype(np.float32)
  box = np.array([[20.0, 30, 50, 71]], np.float32) * present[:, None]
  search[1::2, 30:71, 20:50] = 255
  return {"template": template[..., None], "search": search[..., None], "search_box_ltrb": box, "present": present,
          "index": np.arange(first, first + size, dtype=np.uint32)}


def run(chances, made=None, seed=0):
  made = batch() if made is None else made
  return jax.device_get(jax.jit(lambda b: augment(b, seed, chances))(made))


def test_nothing_changes_without_effects():
  found, given = run(config()), batch()
  for name in given:
    np.testing.assert_array_equal(found[name], given[name])


def test_an_example_depends_on_seed_and_number_only():
  """Not on its place in the batch, nor on how large the batch is."""
  chances, whole = small.config().data.augment, batch(6)
  found = run(chances, whole)
  part = run(chances, {name: value[[4, 2]] for name, value in whole.items()})
  for name in found:
    np.testing.assert_allclose(part[name], found[name][[4, 2]], atol=1e-3)
  renumbered = run(chances, whole | {"index": whole["index"] + 6})
  other_seed = run(chances, whole, seed=1)
  for other in (renumbered, other_seed):
    assert all(not np.array_equal(a, b) for a, b in zip(other["search"], found["search"], strict=True))


def test_a_camera_has_one_tone_curve():
  """255 (x / 255)^g with the same g, from 1/2 to 2, in both crops of a pair."""
  found, given = run(config(tone=1.0)), batch()
  exponents = []
  for i in range(len(given["index"])):
    one = []
    for name in ("template", "search"):
      x, y = (image[name][i].astype(np.float64) / 255 for image in (given, found))
      inside = (x > 0.1) & (x < 0.9)
      g = np.log(y[inside]) / np.log(x[inside])
      np.testing.assert_allclose(g, g.mean(), rtol=1e-4)
      one.append(g.mean())
    np.testing.assert_allclose(*one, rtol=1e-4)
    exponents.append(one[0])
  assert 0.5 <= min(exponents) < max(exponents) <= 2


def test_sharpening_leaves_halos_at_edges_only():
  """Both crops alike: beside an edge the dark side gets darker and the bright one brighter, plains stay."""
  given = batch()
  for name, side in (("template", 63), ("search", 127)):
    given[name] = np.full((4, side, side, 1), 100, np.uint8)
    given[name][:, :, side // 2:] = 150
  found = run(config(halo=1.0), given)
  for name, side in (("template", 63), ("search", 127)):
    line = found[name][:, side // 2, :, 0]
    np.testing.assert_allclose(line[:, [5, -6]], [[100, 150]] * 4, atol=0.5)
    dark, bright = 100 - line[:, side // 2 - 1], line[:, side // 2] - 150
    assert (dark > 2).all()
    np.testing.assert_allclose(dark, bright, atol=0.1)
  np.testing.assert_allclose(found["template"][:, 31, 26:36], found["search"][:, 63, 58:68], atol=0.1)


def test_flips_map_the_box():
  found, given = run(config(flip=1.0)), batch()
  np.testing.assert_array_equal(found["template"], given["template"][:, :, ::-1])
  np.testing.assert_array_equal(found["search"], given["search"][:, :, ::-1])
  bright = np.argwhere(found["search"][1, ..., 0] == 255)
  np.testing.assert_array_equal([*bright.min(0)[::-1], *(bright.max(0)[::-1] + 1)], found["search_box_ltrb"][1])
  np.testing.assert_array_equal(found["search_box_ltrb"][0], 0)  # No target stays no target.


def test_half_of_the_examples_are_flipped():
  made = {name: np.repeat(value[1:2], 400, 0) for name, value in batch().items()} | {
      "index": np.arange(400, dtype=np.uint32)}
  flipped = (run(config(flip=0.5), made)["search_box_ltrb"][:, 0] != 20).mean()
  assert flipped == pytest.approx(0.5, abs=0.1)


def test_polarity_inverts_both():
  found, given = run(config(polarity=1.0)), batch()
  for name in ("template", "search"):
    np.testing.assert_array_equal(found[name], 255.0 - given[name])
  np.testing.assert_array_equal(found["search_box_ltrb"], given["search_box_ltrb"])


def test_crossover_inverts_the_search_crop_alone():
  found, given = run(config(crossover=1.0)), batch()
  np.testing.assert_array_equal(found["template"], given["template"])
  np.testing.assert_array_equal(found["search"], 255.0 - given["search"])
  np.testing.assert_array_equal(run(config(crossover=1.0, polarity=1.0))["search"], given["search"])


@pytest.mark.parametrize("effect", [n for n in small.config().data.augment
                                    if n not in ("flip", "polarity", "crossover", "grain")])
def test_effects_keep_the_scene(effect):
  """They change every crop, but it stays the same scene in the same range."""
  found, given = run(config(**{effect: 1.0})), batch()
  for name in ("template", "search"):
    assert found[name].dtype == np.float32 and found[name].min() >= 0 and found[name].max() <= 255
    for image, before in zip(found[name], given[name], strict=True):
      assert not np.array_equal(image, before)
      assert np.corrcoef(image.ravel(), before.ravel())[0, 1] > 0.6
  np.testing.assert_array_equal(found["search_box_ltrb"], given["search_box_ltrb"])


def test_noise_and_gain_have_the_stated_sizes():
  flat = {name: np.repeat(value[:1], 200, 0) for name, value in batch().items()} | {
      "index": np.arange(200, dtype=np.uint32), "template": np.full((200, 63, 63, 1), 128, np.uint8),
      "search": np.full((200, 127, 127, 1), 128, np.uint8)}
  deviations = run(config(noise=1.0), flat)["search"].std((1, 2, 3))  # Uniform in 1..8.
  assert 0.9 < deviations.min() < 2 and 7 < deviations.max() < 8.2
  levels = run(config(gain=1.0), flat)["search"][:, 0, 0, 0] - 128  # Uniform in -40..40.
  assert -40 <= levels.min() < -30 and 30 < levels.max() <= 40
  columns = run(config(stripes=1.0), flat)["search"]
  assert np.ptp(columns, axis=1).max() < 1e-3 and np.ptp(columns[0, 0]) > 1  # Equal down a column, not across.


def test_blur_is_gaussian():
  """A bright point spreads to what OpenCV makes of it, for the deviation that fits best."""
  made = batch(12)
  made["search"] = np.zeros((12, 127, 127, 1), np.uint8)
  made["search"][:, 60, 63] = 255
  for image in run(config(blur=1.0), made)["search"][..., 0]:
    point = made["search"][0, ..., 0].astype(np.float32)
    best = min(np.abs(cv2.GaussianBlur(point, (31, 31), x, sigmaY=y) - image).max() / image.max()
               for s in np.linspace(0.3, 2.54, 57) for x, y in ((s, s), (s, 0.01), (0.01, s)))
    assert best < 0.12 and image.sum() == pytest.approx(255, rel=1e-3)


def test_a_lens_blurs_both_crops_alike():
  """A bright point has the same spread in template and search crop."""
  made = batch(8)
  for name, side in (("template", 63), ("search", 127)):
    made[name] = np.zeros((8, side, side, 1), np.uint8)
    made[name][:, side // 2, side // 2] = 255
  found = run(config(lens=1.0), made)
  spots = found["template"][:, 26:37, 26:37, 0], found["search"][:, 58:69, 58:69, 0]
  np.testing.assert_allclose(*spots, rtol=1e-2)  # The template is too small for the widest one's rim.
  peaks = spots[0][:, 5, 5] / 255
  assert 1 / (2 * np.pi * 5**2) < peaks.min() < peaks.max() < 1


def test_noise_of_any_grain_keeps_its_deviation():
  """Neighbours are alike in some crops and independent in others; the deviation is as stated either way."""
  flat = {name: np.repeat(value[:1], 60, 0) for name, value in batch().items()} | {
      "index": np.arange(60, dtype=np.uint32), "search": np.full((60, 127, 127, 1), 128, np.uint8)}
  noise = run(config(noise=1.0, grain=1.0), flat)["search"][..., 0] - 128
  alike = (noise[:, 1:] * noise[:, :-1]).mean((1, 2)) / noise.var((1, 2))
  assert alike.min() < 0.1 and alike.max() > 0.8
  assert 0.9 < noise.std((1, 2)).min() and noise.std((1, 2)).max() < 8.5


@pytest.mark.parametrize("quality", [20, 50])
def test_compression_is_that_of_jpeg(quality):
  """Of the frame itself, blocks in step with it: what OpenCV's JPEG leaves, but for its rounding."""
  image = texture(3, 128)
  coarseness = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100  # The Independent JPEG Group's rule.
  expected = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
  found = np.asarray(_compressed(image.astype(np.float32), coarseness, 8, 0))
  lost = np.abs(expected.astype(float) - image).mean()
  assert np.abs(found - expected).mean() < 0.25 * lost  # Now and then a coefficient halfway is rounded the other way.


def test_compression_of_an_enlarged_frame():
  """Twice as large, with blocks of twice the side: almost what enlarging the compressed frame gives."""
  image = texture(3, 64).astype(np.float32)

  def double(x):
    return cv2.resize(x, (128, 128), interpolation=cv2.INTER_LINEAR)

  of_double = np.asarray(_compressed(double(image), 2.0, 16, 0))
  doubled = double(np.asarray(_compressed(image, 2.0, 8, 0)))
  lost, expected = of_double - double(image), doubled - double(image)
  assert np.corrcoef(lost.ravel(), expected.ravel())[0, 1] > 0.75
  assert lost.std() == pytest.approx(expected.std(), rel=0.25)


def test_compression_with_fine_steps_loses_nothing_wherever_the_blocks_lie():
  image = cv2.GaussianBlur(texture(3, 63).astype(np.float32), (0, 0), 2)
  for block, shift, error in ((8, 0, 0.1), (8, 5, 0.1), (13, 12, 2)):  # 13 pixels of what was 8: finer waves are gone.
    np.testing.assert_allclose(_compressed(image, 1e-3, block, shift), image, atol=error)


def test_equalization():
  """A crop of two levels by hand, and one of many against OpenCV's CLAHE of a single tile."""
  two = np.full((64, 64), 100.0, np.float32)
  two[:16] = 60.0  # A quarter.
  found = np.asarray(_equalized(two, 4.0))  # Each level has at most 4/32; the other 24/32 go to all 32 alike.
  width, added = 255 / 32, 24 / 32 / 32

  def by_hand(level, below):
    return 255 * (level / width * added + below)

  np.testing.assert_allclose(found[0, 0], by_hand(60, (60 % width) / width * 4 / 32), rtol=1e-4)
  np.testing.assert_allclose(found[-1, 0], by_hand(100, 4 / 32 + (100 % width) / width * 4 / 32), rtol=1e-4)
  many = texture(3, 128)
  expected = cv2.createCLAHE(clipLimit=4, tileGridSize=(1, 1)).apply(many)
  np.testing.assert_allclose(_equalized(many.astype(np.float32), 4.0), expected, atol=8)
