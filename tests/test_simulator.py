"""The simulator: determinism, exact labels, measured statistics, files on disk."""

import json
import os
import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from input_pipeline.errors import DataError
from input_pipeline.simulator import attributes, simulate, write_sequence
from input_pipeline.simulator.motion import draw_plan
from input_pipeline.simulator.multirotor import draw_multirotor, project
from input_pipeline.simulator.raster import render_polygons
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
  """The frame with the target minus the same frame without it."""
  found = 0
  with_target = {i: simulate(2, i, 6, 640, 512) for i in range(8)}
  paint = TargetPainter.paint
  monkeypatch.setattr(TargetPainter, "paint", lambda self, t, radiance, *rest: paint(self, t, radiance.copy(), *rest))
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


def test_trajectory_is_replayed():
  boxes = np.array([[20 + 3 * t, 30 + t, 18, 12] for t in range(15)], float)
  boxes[5:8] = 0
  boxes[14] = [150, 50, 20, 10]  # Half outside.
  sequence = simulate(0, 0, 15, 160, 128, trajectory=boxes)
  assert sequence.visible.tolist() == [t not in (5, 6, 7) for t in range(15)]
  assert np.allclose(sequence.boxes[:14], boxes[:14])
  assert np.allclose(sequence.boxes[14], [150, 50, 10, 10])


def test_bad_arguments_are_named():
  with pytest.raises(DataError, match="first box"):
    simulate(0, 0, 3, 160, 128, trajectory=np.zeros((3, 4)))
  with pytest.raises(DataError, match=r"\(2, 4\)"):
    simulate(0, 0, 3, 160, 128, trajectory=np.ones((2, 4)))
  with pytest.raises(DataError, match="at least one frame"):
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
  image = cv2.imread(str(folder / "000001.jpg"), cv2.IMREAD_UNCHANGED)
  assert image.ndim == 2 and np.abs(image.astype(int) - sequence.frames[0]).mean() < 3


def test_unwritable_folder_is_one_sentence(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(DataError, match="cannot be written"):
    write_sequence(simulate(0, 0, 1, 64, 64), tmp_path / "file")


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
  third = _run(*common[:2], "--seed=4", "--sequences=2")
  assert third.returncode != 0 and "simulation.json" in third.stderr and "Traceback" not in third.stderr
