"""The simulator: determinism, exact labels, measured statistics, files on disk."""

import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape
from input_pipeline.simulator import attributes, flyers, render, sensor, simulate, target, write_sequence
from input_pipeline.simulator.codec import Codec
from input_pipeline.simulator.dataset import write_beside, write_dataset
from input_pipeline.simulator.distractors import Distractor, distractor_boxes, paint_distractor
from input_pipeline.simulator.motion import draw_plan
from input_pipeline.simulator.multirotor import draw_multirotor, project
from input_pipeline.simulator.raster import render_polygons
from input_pipeline.simulator.sensor import Sensor
from input_pipeline.simulator.streams import stream
from input_pipeline.simulator.target import TargetPainter

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = {"num_frames": 12, "width": 160, "height": 128}


def _frames(sequence):
  return np.stack(list(sequence.frames))


def test_same_arguments_give_the_same_bits():
  first, second = simulate(3, 5, **SMALL), simulate(3, 5, **SMALL)
  assert np.array_equal(_frames(first), _frames(second))
  assert np.array_equal(first.boxes, second.boxes)
  assert first.attributes == second.attributes and first.name == "sim_000005"


def test_index_and_seed_change_everything():
  base = simulate(3, 5, **SMALL)
  for other in (simulate(3, 6, **SMALL), simulate(4, 5, **SMALL)):
    assert not np.array_equal(_frames(base), _frames(other))
    assert not np.array_equal(base.boxes, other.boxes)


@pytest.mark.parametrize("index", range(20))
def test_labels_are_consistent(index):
  sequence = simulate(11, index, 30, 160, 128)
  frames, boxes, visible = _frames(sequence), sequence.boxes, sequence.visible
  assert frames.shape == (30, 128, 160) and frames.dtype == np.uint8
  assert boxes.shape == (30, 4) and boxes.dtype == np.float32 and visible.dtype == bool
  assert visible[0]
  assert np.array_equal(visible, (boxes[:, 2:] > 0).all(axis=1))
  assert not boxes[~visible].any()
  assert (boxes[:, :2] >= 0).all()
  assert (boxes[:, :2] + boxes[:, 2:] <= np.array([160, 128]) + 1e-3).all()
  assert set(sequence.attributes) <= set(attributes.NAMES)
  assert {"TS", "SS", "MS", "NS"} & set(sequence.attributes), "some size class always holds"
  assert frames.std() > 2, "an empty picture"


def test_silhouette_fills_its_box_exactly():
  """Counts the pixels that any ink reaches, on 100 sub-pixel positions, sizes and poses."""
  rng = np.random.default_rng(0)
  for _ in range(100):
    model = draw_multirotor(rng, rng.choice([-1.0, 1.0]))
    box = np.array([*rng.uniform(10, 30, 2), *rng.uniform(4, 70, 2)])
    patch = render_polygons(*project(model, *rng.uniform(0, 1, 3)), box, 0.0)
    ys, xs = np.nonzero(patch.opacity > 0)
    touched = np.array([patch.left + xs.min(), patch.top + ys.min(), patch.left + xs.max() + 1,
                        patch.top + ys.max() + 1])
    ltrb = np.concatenate([box[:2], box[:2] + box[2:]])
    # Whole pixels contain the box and are less than a pixel (and one fine sample) larger on each side.
    assert (np.abs(touched - ltrb) <= 1.5).all(), (touched, ltrb)
    inner = np.concatenate([np.ceil(ltrb[:2] - 0.3), np.floor(ltrb[2:] + 0.3)])
    assert (touched[:2] <= inner[:2] + 1e-9).all() and (touched[2:] >= inner[2:] - 1e-9).all()


def test_box_is_tight_around_what_the_target_changes(monkeypatch):
  """The frame with the target minus the same frame without it, of tight boxes and before compression and blur."""
  found = 0
  monkeypatch.setattr(sensor, "draw_codec", lambda rng: None)
  monkeypatch.setattr(Sensor, "smear", lambda self, moved: np.zeros(2))
  monkeypatch.setattr(target, "_draw_inset", lambda rng: np.zeros(4))
  draw = flyers.draw_flyer
  monkeypatch.setattr(flyers, "draw_flyer", lambda rng, kind, *rest: draw(rng, "drone", *rest))
  monkeypatch.setattr(render, "draw_distractors", lambda *rest: [])
  with_target = {i: simulate(2, i, 6, 640, 512) for i in range(8)}
  paint = TargetPainter.paint
  monkeypatch.setattr(TargetPainter, "paint",
                      lambda self, now, t, radiance, *rest: paint(self, now, t, radiance.copy(), *rest))
  for index, sequence in with_target.items():
    without = simulate(2, index, 6, 640, 512)
    assert np.array_equal(sequence.boxes, without.boxes)
    for t in range(6):
      change = np.abs(sequence.frames[t].astype(int) - without.frames[t])
      x, y, w, h = sequence.boxes[t]
      if change.max() < 25 or change.max() > 250:
        continue  # Too faint, or clipped at black or white, to have measurable edges.
      ys, xs = np.nonzero(change > 0.12 * change.max())
      error = np.array([xs.min() - x, ys.min() - y, xs.max() + 1 - (x + w), ys.max() + 1 - (y + h)])
      assert (np.abs(error) <= 2.0 + 0.12 * max(w, h)).all(), (index, t, error, (w, h))
      ys, xs = np.nonzero(change)
      assert xs.min() >= x - 6 and xs.max() <= x + w + 6 and ys.min() >= y - 6 and ys.max() <= y + h + 6
      found += 1
  assert found >= 15


def _many_plans(count, num_frames):
  return [draw_plan(stream(0, i, "motion"), num_frames, 640, 512) for i in range(count)]


def test_statistics_follow_the_measured_ones():
  plans = _many_plans(300, 200)
  sizes = [np.sqrt(plan.boxes[:, 2] * plan.boxes[:, 3]) for plan in plans]
  pooled = np.concatenate(sizes)
  # FIELD.md, section 3, 640x512: percentiles of sqrt(wh) in px.
  for percent, expected in ((5, 8.0), (25, 16.0), (50, 31.0), (75, 41.0), (95, 57.0), (99, 78.0)):
    assert np.percentile(pooled, percent) == pytest.approx(expected, rel=0.3), percent
  aspects = np.concatenate([plan.boxes[:, 2] / plan.boxes[:, 3] for plan in plans])
  for percent, expected in ((5, 1.0), (50, 1.45), (95, 2.95)):
    assert np.percentile(aspects, percent) == pytest.approx(expected, rel=0.15), percent
  ratios, absent = [], []
  for plan, size in zip(plans, sizes):
    seen = ~plan.planned_absent
    moved = np.linalg.norm(np.diff(plan.boxes[:, :2] + plan.boxes[:, 2:] / 2, axis=0), axis=1)
    ratios.append((moved / size[1:])[seen[1:] & seen[:-1]])
    absent.append(1 - seen.mean())
  ratios = np.concatenate(ratios)
  for percent, expected, rel in ((50, 0.10, 0.3), (95, 0.70, 0.35), (99, 1.5, 0.4)):
    assert np.percentile(ratios, percent) == pytest.approx(expected, rel=rel), percent
  assert np.median([size.max() / size.min() for size in sizes]) == pytest.approx(1.7, rel=0.2)
  assert 0.012 < np.mean(absent) < 0.035


def test_gaps_are_as_long_as_measured_when_there_is_room():
  lengths = [gap.stop - gap.start for plan in _many_plans(150, 1000) for gap in plan.gaps]
  assert 8 < np.median(lengths) < 22 and np.percentile(lengths, 95) > 60


def test_sizes_and_motion_scale_with_the_width():
  for index in range(20):
    large, small = (draw_plan(stream(1, index, "motion"), 5, 320 * k, 256 * k) for k in (2, 1))
    wide, narrow = (np.sqrt(plan.boxes[0, 2] * plan.boxes[0, 3]) for plan in (large, small))
    # Where w or h meets its lower limit of two pixels the ratio is smaller.
    assert narrow == pytest.approx(wide / 2, rel=1e-6) or small.boxes[0, 2:].min() == 2


def test_first_box_is_inside_the_view():
  for index in range(200):
    x, y, w, h = draw_plan(stream(9, index, "motion"), 40, 320, 256).boxes[0]
    assert x >= 0 and y >= 0 and x + w <= 320 and y + h <= 256


def test_planned_gaps_are_absences():
  """Most frames of each planned gap are labelled absent, whatever its kind."""
  checked = set()
  for index in range(200):
    plan = draw_plan(stream(2, index, "motion"), 60, 160, 128)
    kinds = {gap.kind for gap in plan.gaps}
    if not kinds or kinds <= checked:
      continue
    sequence = simulate(2, index, 60, 160, 128)
    for gap in plan.gaps:
      assert (~sequence.visible[gap.start:gap.stop]).mean() >= 0.75, (index, gap)
      assert ("OV" if gap.kind == "out_of_view" else "OC") in sequence.attributes
    checked |= kinds
    if len(checked) == 2:
      return
  raise AssertionError(f"only {checked} in 200 sequences")


@pytest.mark.parametrize("index", range(4))
def test_camera_jumps_move_the_picture_with_the_target(index):
  """Several times the target is far away in the next frame, and still at the same place of the world."""
  width, height = 320, 256
  plan = draw_plan(stream(5, index, "motion"), 200, width, height, camera_jumps=True)
  centres = plan.boxes[:, :2] + plan.boxes[:, 2:] / 2
  moved = np.abs(np.diff(centres, axis=0)) / [width, height]
  seen = ~plan.planned_absent
  jumps = np.flatnonzero((np.hypot(*moved.T) > 0.14) & seen[1:] & seen[:-1]) + 1
  assert len(jumps) >= 2
  assert moved[jumps - 1].max() <= 0.51
  _, views = render._prepare_scene(stream(5, index, "scene"), plan, width, height)
  world = np.stack([view[:, :2] @ centre + view[:, 2] for view, centre in zip(views, centres)])
  assert np.abs(np.diff(world, axis=0)[jumps - 1]).max() < 12


def test_sudden_zoom_changes_target_and_scene_alike():
  found = 0
  for index in range(120):
    plan = draw_plan(stream(6, index, "motion"), 60, 640, 512)
    zoom = plan.camera[1:, 3] / plan.camera[:-1, 3]
    size = np.sqrt(plan.boxes[:, 2] * plan.boxes[:, 3])
    for t in np.flatnonzero(np.abs(np.log(zoom)) > 0.18):
      assert 1 / 2.2 < zoom[t] < 2.2
      if 7 < size[t:t + 2].min() and size[t:t + 2].max() < 85:  # Within the limits of a target's size.
        assert size[t + 1] / size[t] == pytest.approx(zoom[t], rel=0.12)
        found += 1
  assert found >= 4


def _still_target(index, monkeypatch, crossing):
  """First and last frame of a target at rest, less the same without it, in grey levels, [2, h, w] of its box."""
  monkeypatch.setattr(sensor, "draw_codec", lambda rng: None)
  monkeypatch.setattr(target, "_crossover", lambda rng, num_frames: np.linspace(1, -1 if crossing else 1, num_frames))
  boxes = np.tile([70.0, 50.0, 24.0, 16.0], (20, 1))
  shown = simulate(4, index, 20, 160, 128, trajectory=boxes)
  with monkeypatch.context() as absent:
    absent.setattr(TargetPainter, "paint", lambda self, *rest: 0.0)
    absent.setattr(render, "_FIRST_CONTRAST", 0.0)
    empty = simulate(4, index, 20, 160, 128, trajectory=boxes)
  return np.stack([shown.frames[t][50:66, 70:94].astype(float) - empty.frames[t][50:66, 70:94] for t in (0, 19)])


def test_crossover_turns_hot_into_cold(monkeypatch):
  monkeypatch.setattr(render, "draw_distractors", lambda *rest: [])
  for crossing in (False, True):
    first, last = np.moveaxis([_still_target(i, monkeypatch, crossing).mean((1, 2)) for i in range(10)], 1, 0)
    clear = np.minimum(abs(first), abs(last)) > 2
    assert clear.sum() >= 3
    same = np.sign(first) == np.sign(last)
    assert (same[clear].mean() < 0.2) if crossing else (same[clear].mean() > 0.8)


def test_motion_blur_widens_a_silhouette_as_a_uniform_motion_does():
  """A box of variance v that moves by L has the variance v + L^2 / 12."""
  square = [np.array([[0, 0], [1, 0], [1, 1], [0, 1]])], [(1, 1)], (20.3, 30.7, 8, 8), 0.8
  for length in (4.0, 9.0, 14.0):
    sharp, smeared = (render_polygons(*square, None, smear) for smear in ((0, 0), (length, 0)))

    def moments(patch):
      weights = patch.opacity.sum(axis=0) / patch.opacity.sum()
      x = patch.left + 0.5 + np.arange(len(weights))
      return weights @ x, weights @ x**2 - (weights @ x) ** 2

    assert smeared.opacity.sum() == pytest.approx(sharp.opacity.sum(), rel=1e-4)
    assert moments(smeared)[0] == pytest.approx(moments(sharp)[0], abs=0.05)
    assert moments(smeared)[1] - moments(sharp)[1] == pytest.approx(length**2 / 12, rel=0.15, abs=0.2)


def test_compression_freezes_noise_and_stays_close():
  rng = np.random.default_rng(0)
  scene = cv2.GaussianBlur(rng.uniform(0, 255, (64, 80)).astype(np.float32), (0, 0), 6) * 1.0
  frames = [np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255).astype(np.uint8) for _ in range(12)]
  shown = np.stack([codec.pass_on(frame) for codec in [Codec(30, 100)] for frame in frames]).astype(float)
  assert np.abs(shown - scene).mean() < 3
  assert shown[1:].std(axis=0).mean() < 0.5 * np.std(frames[1:], axis=0).mean()
  alone = Codec(98, 1)
  assert all(np.abs(alone.pass_on(frame).astype(int) - frame).mean() < 1 for frame in frames)


def test_loose_boxes_are_a_fixed_margin(monkeypatch):
  """The silhouette lies inside its box, with the drawn shares of the sides between them."""
  inset = np.array([0.2, 0.1, 0.3, 0.25])
  monkeypatch.setattr(target, "_draw_inset", lambda rng: inset)
  boxes = np.tile([40.0, 50.0, 60.0, 40.0], (3, 1))
  painted = target.draw_target(stream(0, 3, "target"), boxes)
  camera = Sensor(stream(0, 3, "sensor"), stream(0, 3, "temporal_noise"), 3, 160, 128)
  camera.lens_sigma = 0.0
  patch = TargetPainter(painted, boxes, camera).patch(1)
  ys, xs = np.nonzero(patch.opacity > 0)
  found = [patch.left + xs.min(), patch.top + ys.min(), patch.left + xs.max() + 1, patch.top + ys.max() + 1]
  assert np.allclose(found, [52, 54, 82, 80], atol=1.5)


def test_trajectory_is_replayed():
  boxes = np.array([[20 + 3 * t, 30 + t, 18, 12] for t in range(15)], float)
  boxes[5:8] = 0
  boxes[14] = [150, 50, 20, 10]  # Half outside.
  sequence = simulate(0, 0, 15, 160, 128, trajectory=boxes)
  assert sequence.visible.tolist() == [t not in (5, 6, 7) for t in range(15)]
  assert np.allclose(sequence.boxes[:14], boxes[:14])
  assert np.allclose(sequence.boxes[14], [150, 50, 10, 10])


def test_bad_arguments_are_named():
  with pytest.raises(UserError, match="first box"):
    simulate(0, 0, 3, 160, 128, trajectory=np.zeros((3, 4)))
  with pytest.raises(UserError, match=r"\(2, 4\)"):
    simulate(0, 0, 3, 160, 128, trajectory=np.ones((2, 4)))
  with pytest.raises(UserError, match="at least one frame"):
    simulate(0, 0, 0, 160, 128)


def test_one_frame_is_a_sequence():
  sequence = simulate(0, 0, 1, 64, 64)
  assert len(sequence) == 1 and sequence.visible.all()


def test_written_sequence_reads_back(tmp_path):
  sequence = simulate(0, 1, **SMALL)
  folder = write_sequence(sequence, tmp_path)
  label = json.loads((folder / "IR_label.json").read_text())
  assert label["exist"] == [int(v) for v in sequence.visible]
  for row, box, seen in zip(label["gt_rect"], sequence.boxes, sequence.visible):
    assert row == [] if not seen else np.allclose(row, box, atol=1e-3)
  assert tuple(label["attributes"]) == sequence.attributes
  (read,) = datasets.load("antiuav410", tmp_path)
  assert np.allclose(read.lookalikes, sequence.lookalikes, atol=1e-3)
  image = cv2.imread(str(folder / "000001.jpg"), cv2.IMREAD_UNCHANGED)
  assert image.ndim == 2 and np.abs(image.astype(int) - sequence.frames[0]).mean() < 3


def test_unwritable_folder_is_one_sentence(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(UserError, match="cannot be written"):
    write_sequence(simulate(0, 0, 1, 64, 64), tmp_path / "file")


def test_data_set_of_several_sizes(tmp_path):
  shapes = [FrameShape(48, 64), FrameShape(64, 96), FrameShape(64, 48)]
  write_dataset(tmp_path / "a", 8, 1, 2, 640, 512, shapes=shapes)
  write_dataset(tmp_path / "b", 8, 1, 2, 640, 512, shapes=shapes)
  found = [[sequence.shape for sequence in datasets.load("antiuav410", tmp_path / name)] for name in "ab"]
  assert found[0] == found[1] and set(found[0]) == set(shapes)
  with pytest.raises(UserError, match="simulation.json"):
    write_dataset(tmp_path / "a", 8, 1, 2, 640, 512, shapes=shapes[:2])


def test_look_alikes_are_labelled_where_they_are_painted():
  """In the view, cut by its edge, and outside of it."""
  flyer = flyers.draw_flyer(np.random.default_rng(3), "aeroplane", 3, 2.0, 1.0)
  alike = Distractor(flyer, np.array([[50.0, 40], [3, 40], [-7, 40]]), np.full((3, 2), [24.0, 12]), 80.0, False)
  boxes = distractor_boxes([alike], 3, 100, 80)
  np.testing.assert_allclose(boxes, [[0, 38, 34, 24, 12], [1, 0, 34, 15, 12]], atol=1e-4)
  for t, (_, x, y, w, h) in enumerate(boxes):
    radiance = np.full((80, 100), 100, np.float32)
    paint_distractor(alike, t, radiance, 0.5, 0.0)
    rows, columns = np.nonzero(np.abs(radiance - 100) > 4)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = np.array([x, y, x + w, y + h])
    if t == 0:
      np.testing.assert_allclose(found, box, atol=2)
    assert (found[:2] >= box[:2] - 2).all() and (found[2:] <= box[2:] + 2).all()


def test_workers_write_the_same(tmp_path):
  write_dataset(tmp_path / "given", 2, 3, 1, 96, 64)
  written = []
  for workers in (1, 2):
    folder = tmp_path / str(workers)
    write_dataset(folder, 3, 2, 5, 64, 48, workers=workers, backgrounds=("antiuav410", tmp_path / "given"))
    written.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
  assert written[0] == written[1] and len(written[0]) == 3 * 3 + 2


def test_data_set_is_replayed_at_another_size(tmp_path):
  write_dataset(tmp_path / "given", 2, 12, 1, 96, 64)
  given = datasets.load("antiuav410", tmp_path / "given")
  write_dataset(tmp_path / "replayed", 3, 10, 7, 192, 192, replay=("antiuav410", tmp_path / "given"))
  replayed = datasets.load("antiuav410", tmp_path / "replayed")
  for index, sequence in enumerate(replayed):
    wanted = given[index % 2]
    assert len(sequence) == 10 and sequence.shape == (192, 192)
    assert np.array_equal(sequence.visible, wanted.visible[:10])
    assert np.allclose(sequence.boxes, wanted.boxes[:10] * [2, 3, 2, 3], atol=0.01)
  assert not np.array_equal(replayed[0].frames[0], replayed[2].frames[0])  # Another world around the same boxes.
  with pytest.raises(UserError, match="camera jumps"):
    write_dataset(tmp_path / "no", 1, 4, 0, 64, 64, camera_jumps=True, replay=("antiuav410", tmp_path / "given"))
  picture = cv2.imread(str(write_beside(tmp_path / "given", 2, "antiuav410", tmp_path / "replayed")))
  assert picture.shape == (1024, 1920, 3)


def _run(*arguments):
  return subprocess.run([sys.executable, str(ROOT / "scripts" / "simulate.py"), *arguments], capture_output=True,
                        text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def test_script_writes_continues_and_refuses(tmp_path):
  out = tmp_path / "data"
  common = (f"--out={out}", "--frames=4", "--seed=3", "--width=96", "--height=64")
  first = _run(*common, "--sequences=2")
  assert first.returncode == 0, first.stderr
  assert cv2.imread(str(out / "contact_sheet.png")) is not None
  assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["sim_000000", "sim_000001"]
  assert len(list((out / "sim_000000").glob("*.jpg"))) == 4
  # As after a kill in the middle of the second sequence: some frames, no label.
  wanted = (out / "sim_000001" / "IR_label.json").read_bytes(), (out / "sim_000001" / "000004.jpg").read_bytes()
  (out / "sim_000001" / "IR_label.json").unlink()
  (out / "sim_000001" / "000004.jpg").unlink()
  kept = (out / "sim_000000" / "000001.jpg").stat().st_mtime_ns
  second = _run(*common, "--sequences=3")
  assert second.returncode == 0, second.stderr
  assert (out / "sim_000000" / "000001.jpg").stat().st_mtime_ns == kept, "a complete sequence was written again"
  assert wanted == ((out / "sim_000001" / "IR_label.json").read_bytes(),
                    (out / "sim_000001" / "000004.jpg").read_bytes())
  assert (out / "sim_000002" / "IR_label.json").is_file()
  for flag in ("--sizes=3x", "--replay=antiuav"):
    bad = _run(*common[:2], "--sequences=2", flag)
    assert bad.returncode == 1 and bad.stderr.startswith("error:") and flag.split("=")[1] in bad.stderr
  third = _run(*common[:2], "--seed=4", "--sequences=2")
  assert third.returncode != 0 and "simulation.json" in third.stderr and "Traceback" not in third.stderr
