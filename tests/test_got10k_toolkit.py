"""The got10k toolkit's own reports on the same files: its numbers are ours to 1e-9.

Skipped where requirements-got10k.txt is not installed, the LaSOT part also where it is the release. Coordinates are
multiples of 1/8, which single precision (labels) and three digits (the toolkit's files) hold exactly.
"""

import numpy as np
import pytest

from input_pipeline import datasets
from input_pipeline.sequences import FrameShape
from siamdff_jax import results
from siamdff_jax.evaluation import protocols

experiments = pytest.importorskip("got10k.experiments", reason="requirements-got10k.txt is not installed")

SHAPE = FrameShape(480, 640)
EXACT = {"rel": 0, "abs": 1e-9}


def walk(rng, frames):
  """True boxes [T, 4] of a target that wanders within the image (1-based too), and a tracker's boxes for them."""
  centre = np.clip(np.cumsum(rng.normal(0, 12, (frames, 2)), axis=0) + (320, 240), 60, (580, 420))
  size = rng.uniform(8, 100, 2) * np.exp(np.cumsum(rng.normal(0, 0.02, (frames, 2)), axis=0)).clip(0.5, 1.1)
  truth = np.concatenate([centre - size / 2, size], axis=1)
  tracked = truth + rng.normal(0, 1, (frames, 4)) * rng.choice([0.5, 4, 16, 200], (frames, 1)) * (1, 1, 0.3, 0.3)
  tracked[:, 2:] = tracked[:, 2:].clip(0.5)
  return np.round(truth * 8) / 8, np.round(tracked * 8) / 8


def write_sequence(folder, truth, images, **label_files):
  """A sequence's files; the toolkit counts the images and does not open them."""
  (folder / images).mkdir(parents=True)
  for t in range(len(truth)):
    (folder / images / f"{t + 1:08d}.jpg").touch()
  for name, values in {"groundtruth.txt": truth, **label_files}.items():
    np.savetxt(folder / name, values, fmt="%.3f" if np.ndim(values) == 2 else "%d", delimiter=",")


def score(protocol, root, folder):
  """Our scores of the toolkit's files."""
  sequences = datasets.load(protocol, root, frames=False)
  return protocols.evaluate_runs(protocol, sequences, results.read_folder(folder, sequences, protocol)).metrics


def report(experiment, monkeypatch):
  """The toolkit's report of the tracker "walker", without its pictures."""
  monkeypatch.setattr(type(experiment), "plot_curves", lambda *args, **kwargs: None)
  return experiment.report(["walker"])["walker"]


def test_got10k(tmp_path, monkeypatch):
  """Three repetitions, frames that are covered or absent, boxes that leave the image, sequences of unequal length."""
  rng = np.random.default_rng(0)
  names = [f"GOT-10k_Val_{n:06d}" for n in (1, 2, 3)]
  walks = {name: walk(rng, frames) for name, frames in zip(names, (120, 90, 40), strict=True)}
  offsets = {}
  for name, (truth, _) in walks.items():
    # After the first frame the target's corner is at one border of the image or the other, partly outside.
    corner = rng.choice([0, 1], (len(truth), 2)) * (np.array(SHAPE.wh) - 20) - rng.integers(-8, 80, (len(truth), 2)) / 8
    offsets[name] = np.concatenate([corner - truth[:, :2], np.zeros_like(corner)], axis=1)
    cover = rng.integers(1, 9, len(truth)) * (rng.random(len(truth)) > 0.2)
    cover[0] = 8
    truth[1:] += offsets[name][1:]
    truth[cover == 0] = rng.choice([0, -1, np.nan], ((cover == 0).sum(), 1))
    write_sequence(tmp_path / "val" / name, truth, "", **{
        "cover.label": cover, "absence.label": cover == 0, "cut_by_image.label": np.zeros(len(truth))})
    (tmp_path / "val" / name / "meta_info.ini").write_text(f"[METAINFO]\nanno_fps: 10Hz\nresolution: {SHAPE.wh}\n")
  (tmp_path / "val" / "list.txt").write_text("\n".join(names) + "\n")
  experiment = experiments.ExperimentGOT10k(
      str(tmp_path), "val", result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports"))
  folder = tmp_path / "results" / "GOT-10k" / "walker"
  for name, (truth, tracked) in walks.items():
    for repetition in (1, 2, 3):
      boxes = tracked + offsets[name] + rng.integers(-40, 40, tracked.shape) / 8 * (1, 1, 0, 0)
      boxes[0] = truth[0]
      experiment._record(str(folder / name / f"{name}_{repetition:03d}.txt"), boxes, np.full(len(boxes), 0.01))
  theirs = report(experiment, monkeypatch)
  ours = score("got10k", tmp_path / "val", folder)
  assert 0.2 < ours["overall"]["ao"] < 0.8
  for name, numbers in [("overall", ours["overall"]), *ours["sequences"].items()]:
    expected = theirs["overall"] if name == "overall" else theirs["seq_wise"][name]
    assert numbers["ao"] == pytest.approx(expected["ao"], **EXACT)
    assert numbers["sr_50"] == pytest.approx(expected["sr"], **EXACT)
  assert ours["overall"]["sr_75"] == pytest.approx(theirs["overall"]["succ_curve"][75], **EXACT)


def test_otb(tmp_path, monkeypatch):
  """A target that is always there, which OTB's is; the tracker says "absent" at times."""
  rng = np.random.default_rng(1)
  walks = {name: walk(rng, frames) for name, frames in (("Basketball", 150), ("Car4", 60), ("Woman", 30))}
  for name, (truth, _) in walks.items():
    write_sequence(tmp_path / "data" / name, truth, "img")
    (tmp_path / "data" / name / "groundtruth.txt").rename(tmp_path / "data" / name / "groundtruth_rect.txt")
  monkeypatch.setattr("got10k.datasets.OTB._download", lambda *args: None)
  experiment = experiments.ExperimentOTB(
      str(tmp_path / "data"), 2015, result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports"))
  folder = tmp_path / "results" / "OTB2015" / "walker"
  for name, (_, tracked) in walks.items():
    tracked[rng.random(len(tracked)) < 0.1] = np.nan
    experiment._record(str(folder / f"{name}.txt"), tracked, np.full(len(tracked), 0.01))
  theirs = report(experiment, monkeypatch)
  ours = score("otb", tmp_path / "data", folder)
  assert 0.2 < ours["overall"]["success_auc"] < 0.8
  for name, numbers in [("overall", ours["overall"]), *ours["sequences"].items()]:
    expected = theirs["overall"] if name == "overall" else theirs["seq_wise"][name]
    assert numbers["success_auc"] == pytest.approx(expected["success_score"], **EXACT)
    assert numbers["success_50"] == pytest.approx(expected["success_rate"], **EXACT)
    assert numbers["precision_20"] == pytest.approx(expected["precision_score"], **EXACT)


def test_lasot(tmp_path, monkeypatch):
  """The toolkit leaves absent frames (NaN) out of the denominator too, LaSOT's own one and ours do not."""
  lasot = pytest.importorskip("got10k.experiments.lasot", reason="the toolkit's release has no LaSOT experiment")
  rng = np.random.default_rng(2)
  names = ["airplane-1", "airplane-9", "bird-2"]
  folder, shares = tmp_path / "results" / "walker", {}
  folder.mkdir(parents=True)
  for name, frames in zip(names, (140, 80, 50), strict=True):
    truth, tracked = walk(rng, frames)
    absent = (rng.random(frames) < 0.2) & (np.arange(frames) > 0) & (name != "bird-2")
    truth[absent] = np.nan
    shares[name] = 1 - absent.mean()
    sequence = tmp_path / "data" / name.split("-")[0] / name
    write_sequence(sequence, truth, "img")
    for flags in ("full_occlusion", "out_of_view"):
      np.savetxt(sequence / f"{flags}.txt", absent[None], fmt="%d", delimiter=",")
    np.savetxt(folder / f"{name}.txt", tracked, fmt="%.3f", delimiter=",")
  experiment = lasot.ExperimentLaSOT(
      str(tmp_path / "data"), "test", result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "reports"))
  chosen = [experiment.dataset.seq_names.index(name) for name in names]
  for attribute in ("seq_names", "seq_dirs", "anno_files"):
    setattr(experiment.dataset, attribute, [getattr(experiment.dataset, attribute)[i] for i in chosen])
  theirs = report(experiment, monkeypatch)["seq_wise"]
  ours = score("lasot", tmp_path / "data", folder)
  for ours_name, theirs_name in [("success_auc", "success_score"), ("precision_20", "precision_score"),
                                 ("normalized_precision_auc", "normalized_precision_score")]:
    expected = {name: theirs[name][theirs_name] * shares[name] for name in names}
    assert {name: ours["sequences"][name][ours_name] for name in names} == pytest.approx(expected, **EXACT)
    assert ours["overall"][ours_name] == pytest.approx(np.mean(list(expected.values())), **EXACT)
  for name in names:
    assert ours["sequences"][name]["normalized_precision"] == pytest.approx(
        theirs[name]["normalized_precision_curve"][20] * shares[name], **EXACT)
