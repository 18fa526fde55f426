"""Scenes made of real frames: the real target is gone, the rest of the picture is there, labels stay exact."""

import cv2
import numpy as np
import pytest

from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import Sequence
from input_pipeline.simulator import simulate, write_sequence
from input_pipeline.simulator.backgrounds import photographed_scene, without_target
from input_pipeline.simulator.dataset import write_dataset

RAMP = np.tile(np.linspace(40, 200, 96, dtype=np.uint8), (64, 1))


def with_target(box=(30.0, 20.0, 9.0, 7.0), visible=True):
  frame = RAMP.copy()
  x, y, w, h = map(int, box)
  frame[y:y + h, x:x + w] = 255
  return Sequence("ramp", ArrayFrames(frame[None]), np.array([box], np.float32) * visible, np.array([visible]), ())


def test_the_target_is_painted_over_by_its_surround():
  found = without_target(with_target(), np.random.default_rng(0)).astype(int)
  assert np.abs(found - RAMP).max() <= 15  # The ramp itself is the answer; the target is off by more than 130.
  outside = np.ones(RAMP.shape, bool)
  outside[14:34, 24:46] = False
  assert np.array_equal(found[outside], RAMP[outside])


def test_a_target_at_the_edge_and_an_absent_one():
  edge = without_target(with_target((90.0, 60.0, 6.0, 4.0)), np.random.default_rng(0))
  assert edge[62, 93] < 210
  absent = with_target(visible=False)
  assert np.array_equal(without_target(absent, np.random.default_rng(0)), absent.frames[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_panorama_shows_the_picture(seed):
  """A part of the enlarged picture is found in it again by normalised correlation."""
  texture = cv2.GaussianBlur(np.random.default_rng(9).integers(0, 256, (64, 80)).astype(np.float32), (0, 0), 2)
  picture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
  scene = photographed_scene(np.random.default_rng(seed), picture, 160, 300, 220)
  assert scene.radiance.shape == scene.occluders.shape == (220, 300) and scene.radiance.dtype == np.float32
  assert scene.unit == 0.25 and not scene.occluders.any()
  part = picture[20:44, 26:56]
  best = max(cv2.matchTemplate(scene.radiance, cv2.resize(side, None, fx=s, fy=s).astype(np.float32),
                               cv2.TM_CCOEFF_NORMED).max()
             for side in (part, part[:, ::-1]) for s in np.arange(1.5, 3.21, 0.05))
  assert best > 0.97


def test_a_sequence_before_a_real_frame():
  """Where neither the target nor an occluder is, the frames follow the picture; the seed's motion is the same."""
  drawn, real = (simulate(3, 5, 8, 160, 128, background=b) for b in (None, RAMP))
  assert np.array_equal(drawn.boxes[0], real.boxes[0])
  again = simulate(3, 5, 8, 160, 128, background=RAMP)
  assert np.array_equal(np.stack(list(real.frames)), np.stack(list(again.frames)))
  assert not np.array_equal(drawn.frames[0], real.frames[0])
  rows = real.frames[0].astype(float)
  assert rows.mean(0).std() > 3 * rows.mean(1).std()  # The ramp runs from left to right, mirrored or not.


def test_a_data_set_before_real_frames(tmp_path):
  write_sequence(with_target(), tmp_path / "real")
  options = dict(num_sequences=2, num_frames=3, seed=4, width=96, height=64)
  write_dataset(tmp_path / "out", **options, backgrounds=("antiuav410", tmp_path / "real"))
  found = datasets.load("antiuav410", tmp_path / "out")
  assert [len(s) for s in found] == [3, 3] and all(s.visible[0] for s in found)
  with pytest.raises(UserError, match="backgrounds"):
    write_dataset(tmp_path / "out", **options)
  with pytest.raises(UserError, match="nowhere"):
    write_dataset(tmp_path / "other", **options, backgrounds=("antiuav410", tmp_path / "nowhere"))
