"""scripts/windows.py: what networks see in windows about the true place."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from spots import SIDE, Spots, scene

import small
from input_pipeline import datasets
from input_pipeline.conditions import CONDITIONS
from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import Sequence
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.experiments import windows
from siamdff_jax.experiments.windows import Windows
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.tracking.tracker import Tracker


def sequence(places, name="s"):
  boxes = np.array([[*spots[0][:2], SIDE, SIDE] if spots else [0] * 4 for spots in places], np.float32)
  return Sequence(name, ArrayFrames(scene(places)), boxes, boxes[:, 2] > 0, ())


def test_what_is_seen():
  """Bright targets, in the last frame a darker one beside a bright look-alike; the absent frame is left out.

  The stand-in's log odds are 20 (level / 255 - 0.6).
  """
  shown = sequence([[(60, 60)], [(70, 66)], [], [(90, 80, 170), (180, 20)]])
  ways = {name: CONDITIONS[name] for name in ("as_recorded", "half_size", "inverted")}
  tracker = Tracker(Spots(), PLAIN.replace(tiles=8))
  found = windows.collect(tracker, {}, [shown], ways, 5)

  def level(grey):
    return 20 * (grey / 255 - 0.6)

  for way in ("as_recorded", "half_size"):
    seen = found[way]["s"]
    np.testing.assert_allclose(seen.present, [level(255), level(170)], atol=0.8)
    np.testing.assert_allclose(seen.absent, [level(90), level(255)], atol=0.8)
  seen = found["inverted"]["s"]  # The ground is what is bright now, with and without the target.
  np.testing.assert_allclose(np.concatenate([seen.present, seen.absent]), level(255 - 90), atol=0.8)
  again = windows.collect(tracker, {}, [shown], ways, 5)
  for way in ways:
    for a, b in zip(found[way]["s"], again[way]["s"], strict=True):
      np.testing.assert_array_equal(a, b)


def test_overlap():
  """The stand-in's boxes are as large as the first. They lie about the cell nearest to what is bright, here the inner
  half of the target: half a cell off at most, 4 of the 32 pixels that the target has in the crop. In the last frame
  what is bright lies 12 pixels to its right, so that the box covers a fourth of the target, half a cell more or less.
  """
  places = sequence([[(60, 60)], [(70, 66)], [(91, 83)], [(120, 40)], [(90, 90)]])
  frames = scene([[]] * 5)
  for frame, (x, y, *_), right in zip(frames, places.boxes.astype(int), (0, 0, 0, 0, 12), strict=True):
    frame[y + 4:y + 12, x + 4 + right:x + 12 + right] = 255
  shown = dataclasses.replace(places, frames=ArrayFrames(frames))
  ways = {"as_recorded": CONDITIONS["as_recorded"]}
  seen = windows.collect(Tracker(Spots(), PLAIN.replace(tiles=8)), {}, [shown], ways, 4)["as_recorded"]["s"]

  def overlap(common):  # Of equal boxes that have this share of each in common.
    return common / (2 - common)

  assert seen.iou[:3].min() > overlap((7 / 8) ** 2) - 0.02
  assert overlap(1 / 8 * 7 / 8) - 0.02 < seen.iou[3] < overlap(3 / 8) + 0.02


def test_separation_is_the_area_under_the_curve():
  """By counting pairs: of 2 x 3 and 1 x 3, with one tie."""

  def of(present, absent):
    return Windows(np.full(len(present), 0.5), np.array(present), np.array(absent))

  found = windows.scored([of([2.0, 0.0], [1.0, 0.0]), of([-1.0], [-2.0])])
  np.testing.assert_allclose(found.separation, [(3 + 1.5) / 6, 1 / 3])
  np.testing.assert_array_equal(found.iou, [0.5, 0.5])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_dataset(folder, 3, 8, seed=5, width=96, height=80)
  return str(folder)


def test_tables_and_scores_by_sequence(data, tmp_path):
  first = small.write_checkpoint(tmp_path / "first", small.config(**small.PLAIN))
  other = small.config(**small.PLAIN)
  other.seed = 1
  second = small.write_checkpoint(tmp_path / "second", other)
  text = windows.assess([first, second, f"same={first}"], "antiuav410", data, str(tmp_path / "out"),
                        conditions=["blur"], frames=2)
  assert (tmp_path / "out" / windows.TABLE_FILE).read_text() == text + "\n"
  parts = text.split("\n\n")
  tables = {part.split(":")[0]: [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows.splitlines()]
            for part, rows in zip(parts[::2], parts[1::2], strict=True)}
  assert list(tables) == ["first", "second", "same", "second minus first", "same minus first"]
  listed = {name: trainings[0] for name, trainings in
            json.loads((tmp_path / "out" / windows.SCORES_FILE).read_text()).items()}
  names = [sequence.name for sequence in datasets.load("antiuav410", data)]
  for name in ("first", "second"):
    assert list(listed[name]["blur"]) == names
    for row in tables[name][2:]:
      for column, field in ((1, "iou"), (4, "separation")):
        mean = np.mean([x[field] for x in listed[name][row[0]].values()])  # Two windows of each sequence.
        assert float(row[column]) == pytest.approx(mean, abs=6e-4)
    assert tables[name][2][2] == "-" and tables[name][3][0] == "blur"
    gain = float(tables[name][3][1]) - float(tables[name][2][1])
    assert float(tables[name][3][2].split()[0]) == pytest.approx(gain, abs=1.1e-3)
  assert listed["first"] == listed["same"] != listed["second"]
  for row in tables["same minus first"][2:]:
    assert row[2] == row[5] == "+0.000 (+0.000 to +0.000)"


def test_trainings_of_a_network(data, tmp_path):
  """Means over trainings; the interval over them by hand from the scores by sequence."""
  paths = []
  for seed in range(4):
    config = small.config(**small.PLAIN)
    config.seed = seed
    paths.append(small.write_checkpoint(tmp_path / str(seed), config))
  text = windows.assess([f"a={paths[0]}", f"b={paths[2]}", f"a={paths[1]}", f"b={paths[3]}", f"same={paths[1]}",
                         f"same={paths[0]}"], "antiuav410", data, str(tmp_path / "out"), conditions=["as_recorded"],
                        frames=2)
  listed = json.loads((tmp_path / "out" / windows.SCORES_FILE).read_text())
  each = {name: [np.mean([x["separation"] for x in one["as_recorded"].values()]) for one in trainings]
          for name, trainings in listed.items()}
  assert len({*each["a"], *each["b"]}) == 4
  rows = [[cell.strip() for cell in part.splitlines()[-1].split("|")[1:-1]] for part in text.split("\n\n")[1::2]]
  assert "b: 3 sequences, 6 windows with the target, mean of 2 trainings" in text
  assert "b minus a: 3 sequences, 6 windows with the target, over 2 and 2 trainings: unpaired (seeds differ)" in text
  assert "same minus a: 3 sequences, 6 windows with the target, over 2 and 2 trainings: paired by seed" in text
  assert rows[4][4] == rows[4][8] == "+0.000 to +0.000"
  for row, name in zip(rows[:2], "ab", strict=True):
    assert float(row[4]) == pytest.approx(np.mean(each[name]), abs=6e-4)
  gain, half_width = rows[3][6], np.diff([float(x) for x in rows[3][8].split(" to ")]) / 2
  assert float(gain.split()[0]) == pytest.approx(np.mean(each["b"]) - np.mean(each["a"]), abs=6e-4)
  # Welch with two runs each: the quantile lies between those of one and of two degrees of freedom.
  error = np.sqrt(np.var(each["a"], ddof=1) / 2 + np.var(each["b"], ddof=1) / 2)
  assert 4.30 * error - 1e-3 < half_width < 12.71 * error + 1e-3


def test_broken_sequences_are_left_out_for_all_networks(data, tmp_path, caplog, capsys):
  """The scores of the others are what they are where nothing is broken."""
  first, other = small.write_checkpoint(tmp_path / "first", small.config(**small.PLAIN)), small.config(**small.PLAIN)
  other.seed = 1
  entries = [first, small.write_checkpoint(tmp_path / "second", other)]
  shutil.copytree(data, tmp_path / "data")
  names = [sequence.name for sequence in datasets.load("antiuav410", data)]

  def of(root, out):
    return entries, "antiuav410", str(root), str(tmp_path / out)

  windows.assess(*of(data, "whole"), conditions=["as_recorded"], frames=2)
  last = next((tmp_path / "data").rglob(f"{names[-1]}/*6.jpg"))
  last.write_bytes(last.read_bytes()[:100])
  capsys.readouterr()
  with pytest.raises(UserError, match=f"1 of 3 sequences were left out, the scores are of the other 2: {names[-1]} is"):
    windows.assess(*of(tmp_path / "data", "part"), conditions=["as_recorded"], frames=2)
  assert f"left out: {last}: not a readable image" in caplog.text
  table = (tmp_path / "part" / windows.TABLE_FILE).read_text()
  assert "2 sequences, 4 windows" in table and "1 of 3 sequences were left out" in table
  assert table == capsys.readouterr().out
  whole, part = (json.loads((tmp_path / out / windows.SCORES_FILE).read_text()) for out in ("whole", "part"))
  for network in ("first", "second"):
    (of_whole,), (of_part,) = whole[network], part[network]
    assert list(of_part["as_recorded"]) == names[:2]
    for name in names[:2]:
      assert of_part["as_recorded"][name]["iou"] == of_whole["as_recorded"][name]["iou"]


def test_problems_are_named(data, tmp_path):
  with pytest.raises(UserError, match="--conditions: 'foggy', expected some of as_recorded, inverted"):
    windows.assess(["lite"], "antiuav410", data, str(tmp_path), conditions=["foggy"])
  with pytest.raises(UserError, match="no network to look at"):
    windows.assess([], "antiuav410", data, str(tmp_path))
  for twice in (["lite", "lite"], ["a=lite", "a=lite"], ["a/lite", "b/lite"]):
    with pytest.raises(UserError, match="there is one called .* already; another training of the same is NAME="):
      windows.assess(twice, "antiuav410", data, str(tmp_path))
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="out: cannot be written"):
    windows.assess(["lite"], "antiuav410", data, str(tmp_path / "file" / "out"))
  with pytest.raises(UserError, match="no sequence has 'none' in its name"):
    windows.assess(["lite"], "antiuav410", data, str(tmp_path), only="none")
