"""Which runs belong together, and intervals over runs, against SciPy's tests, simulation and results of known seeds."""

import json
import shutil

import numpy as np
import pytest
from report_data import results_of, sequences_of
from scipy import stats

import small
from dataset_files import write_json
from input_pipeline import datasets
from siamdff_jax import results
from siamdff_jax.evaluation import compare, comparison, pairing, running, statistics, trackers
from siamdff_jax.evaluation.pairing import Unit
from siamdff_jax.evaluation.report import page, tables

BOXES = [[10.0 + t, 20.0, 8.0, 6.0] for t in range(6)]


def seeds(*numbers):
  return pairing.of_seeds(numbers)


def test_the_interval_of_pairs_is_that_of_their_t_test():
  random = np.random.default_rng(0)
  for count in (2, 3, 10):
    a, b = random.normal(0, 1, (2, count))
    found, theirs = statistics.between_paired_runs(a, b), stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found == pytest.approx((np.mean(a - b), theirs.low, theirs.high), rel=1e-12)
  # By hand: differences 1, 2, 3 have a standard error of 1 / sqrt(3), and 2 degrees of freedom a quantile of 4.3027.
  assert statistics.between_paired_runs([1, 2, 3], [0, 0, 0]) == pytest.approx(
      (2, 2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_equal_differences_leave_no_width_and_one_pair_has_no_interval():
  assert statistics.between_paired_runs([0.5, 0.25, 0.75], [0.5, 0.25, 0.75]) == (0, 0, 0)
  assert statistics.between_paired_runs([0.5, 0.75], [0.25, 0.5]) == (0.25, 0.25, 0.25)
  value, low, high = statistics.between_paired_runs([0.5], [0.25])
  assert value == 0.25 and np.isnan(low) and np.isnan(high)


def test_paired_intervals_hold_the_truth_as_often_as_they_say_and_are_narrow_where_seeds_matter():
  random = np.random.default_rng(1)
  inside, narrower = [], []
  for _ in range(600):
    of_seed = random.normal(0, 1, 4)
    a, b = (of_seed + 0.2 + random.normal(0, 0.1, 4), of_seed + random.normal(0, 0.1, 4))
    paired = pairing.over_runs(a, seeds(0, 1, 2, 3), b, seeds(0, 1, 2, 3))
    unpaired = pairing.over_runs(a, seeds(0, 1, 2, 3), b, seeds(4, 5, 6, 7))
    inside.append(paired.low <= 0.2 <= paired.high)
    narrower.append((paired.high - paired.low) < (unpaired.high - unpaired.low) / 2)
  assert 0.93 <= np.mean(inside) <= 0.97
  assert np.mean(narrower) > 0.9


def test_runs_are_paired_by_what_they_are_not_by_their_order():
  scores = np.array([0.3, 0.7, 0.5])
  same = pairing.over_runs(scores, seeds(0, 1, 2), scores[::-1], seeds(2, 1, 0))
  assert same == (0, 0, 0, "paired by seed", (3, 3))
  starts = [Unit("start", number) for number in range(3)]
  assert pairing.over_runs(scores, starts, scores, starts).how == "paired by start"


@pytest.mark.parametrize("ours, theirs, how", [
    (seeds(0, 1, 2), seeds(0, 3, 4), "unpaired (seeds differ)"),
    (seeds(0, 1, 2), seeds(0, None), "unpaired (seeds unknown)"),
    (seeds(0, 0), seeds(0, 0), "unpaired (seeds unknown)"),
    (pairing.unknown(2), pairing.unknown(2), "unpaired (seeds unknown)")])
def test_runs_that_do_not_match_stay_unpaired(ours, theirs, how):
  a, b = np.array([0.3, 0.7, 0.5])[:len(ours)], np.array([0.4, 0.75, 0.2])[:len(theirs)]
  found, welch = pairing.over_runs(a, ours, b, theirs), stats.ttest_ind(a, b, equal_var=False)
  assert found[:3] == pytest.approx((np.mean(a) - np.mean(b), *welch.confidence_interval(0.95)))
  assert found.how == how and found.runs == (len(a), len(b))


@pytest.mark.parametrize("theirs", [seeds(0, 1, 3), seeds(1, 0)])
def test_seeds_that_both_have_are_paired(theirs):
  """An ablation that is not done yet has one seed more of some variants."""
  by_seed = {0: 0.3, 1: 0.7, 2: 0.5, 3: 0.1}
  b = [by_seed[unit.number] for unit in theirs]
  same = pairing.over_runs([0.3, 0.7, 0.5], seeds(0, 1, 2), b, theirs)
  assert same == (0, 0, 0, "paired by seed, the 2 that both have", (3, len(b)))


def test_starts_of_one_training_count_as_one_run_and_starts_are_no_trainings():
  two = [Unit("seed", number) for number in (0, 0, 1, 1)]
  found = pairing.over_runs([0.1, 0.3, 0.5, 0.7], two, [0.2, 0.4], seeds(0, 1))
  assert found[:3] == pytest.approx((0.1, *stats.ttest_rel([0.2, 0.6], [0.2, 0.4]).confidence_interval(0.95)))
  assert found[3:] == ("paired by seed", (2, 2))
  found = pairing.over_runs([0.1, 0.3], seeds(0, 1), [0.2, 0.6], [Unit("start", 0), Unit("start", 1)])
  assert found.value == pytest.approx(-0.2) and np.isnan(found.low) and np.isnan(found.high)
  assert found.how == "not comparable (seeds against starts)"


# From folders.


@pytest.fixture
def root(tmp_path):
  """Labels of two sequences."""
  for name in ("a", "b"):
    write_json(tmp_path / "data" / name / "IR_label.json", BOXES)
  return tmp_path


def write_results(folder, shift, about=None, starts=0):
  """Results that are `shift` pixels off, of `starts` starts each farther than the one before."""
  for name in ("a", "b"):
    for start in range(max(starts, 1)):
      boxes = np.array(BOXES) + [shift + start / 4, 0, 0, 0]
      path = folder / "results" / (f"{name}/{name}_{start + 1:03d}.json" if starts else f"{name}.json")
      path.parent.mkdir(parents=True, exist_ok=True)
      results.write(path, results.Result(boxes))
  if about is not None:
    (folder / "run.json").write_text(json.dumps(about))
  return folder


def last_row(root, *entries):
  """Of the table of differences between the trackers of NAME=FOLDER entries."""
  sequences, folders = datasets.load("antiuav410", str(root / "data"), frames=False), {}
  for name, _, folder in (entry.partition("=") for entry in entries):
    folders.setdefault(name, []).append(folder)
  compared = comparison.compare("antiuav410", sequences, {
      name: pairing.read(of_one, sequences) for name, of_one in folders.items()})
  return cells_of(tables.format_runs(compared))


def cells_of(text):
  return [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]


def test_equal_variants_differ_by_nothing(root):
  """The seed decides a lot, the variant nothing: unpaired, the interval was as wide as the seeds differ."""
  entries = []
  for variant in ("plain", "other"):
    for seed, shift in enumerate((0, 2, 4)):
      folder = write_results(root / variant / f"run_{seed}", shift, {"tracker": "x", "run": "ope", "seed": seed})
      entries.append(f"{variant}={folder}")
  text = compare.compare("antiuav410", str(root / "data"), "antiuav410", entries, str(root / "out"))
  assert cells_of(text) == ["plain", "other", "+0.000 (+0.000 to +0.000)", "+0.000 to +0.000", "paired by seed", "3, 3"]
  text = (root / "out" / "report.html").read_text()
  assert "<td>+0.000 to +0.000</td><td>3, 3, paired by seed</td>" in text
  assert "paired by seed" in (root / "out" / "comparison.md").read_text()
  # In another order, and by the folder of the result files.
  entries[3:] = [f"other={root / 'other' / f'run_{seed}' / 'results'}" for seed in (2, 0, 1)]
  assert last_row(root, *entries)[3:] == ["+0.000 to +0.000", "paired by seed", "3, 3"]


def test_folders_of_an_ablation_are_named_by_their_seeds(root):
  folders = [write_results(root / variant / f"seed_{seed}", seed, {"tracker": "x", "run": "ope"})
             for variant in ("a", "b") for seed in (0, 1)]
  assert [pairing.seed_of_folder(str(folder)) for folder in folders] == [0, 1, 0, 1]
  assert last_row(root, *(f"{folder.parent.name}={folder}" for folder in folders))[4] == "paired by seed"


def test_results_remember_the_seed_of_their_training(tmp_path):
  config = small.config(**small.PLAIN)
  config.seed = 7
  checkpoint = small.write_checkpoint(tmp_path / "training", config)
  assert trackers.seed(checkpoint) == 7 and trackers.seed("CSRT") is None
  out = str(tmp_path / "results_of_it")
  running.prepare(out, tracker="x", run="ope")  # By an earlier version: nothing is known.
  assert pairing.seed_of_folder(out) is None
  running.prepare(out, tracker="x", run="ope", seed=trackers.seed(checkpoint))
  running.prepare(out, tracker="x", run="ope")
  assert pairing.seed_of_folder(out) == 7
  running.prepare(out, tracker="y", run="ope", redo=True)  # Of another tracker now.
  assert pairing.seed_of_folder(out) is None


@pytest.mark.parametrize("content", ["{", "[1]", '{"seed": "0"}', '{"seed": true}', '{"seed": null}', "\ufeff\x00"])
def test_what_says_no_seed_leaves_runs_unpaired(root, content):
  entries = []
  for number in range(2):
    for variant in ("a", "b"):
      folder = write_results(root / f"{variant}{number}", number)
      (folder / "run.json").write_text(content)
      entries.append(f"{variant}={folder}")
  assert last_row(root, *entries)[4:] == ["unpaired (seeds unknown)", "2, 2"]


def test_moved_first_boxes_are_paired_by_their_number(root):
  about = {"tracker": "x", "run": "sre"}
  one = write_results(root / "one", 0, about, starts=3)
  two = write_results(root / "two", 0, about, starts=3)
  assert last_row(root, f"one={one}", f"two={two}")[3:] == ["+0.000 to +0.000", "paired by start", "3, 3"]
  # Repetitions share nothing that is known.
  for folder in (one, two):
    (folder / "run.json").unlink()
  assert last_row(root, f"one={one}", f"two={two}")[4:] == ["unpaired (seeds unknown)", "3, 3"]


def test_starts_of_several_trainings_are_as_many_runs_as_trainings(root):
  folders = {variant: [write_results(root / f"{variant}{seed}", seed + shift, {"run": "sre", "seed": seed}, starts=3)
                       for seed in (0, 1)] for variant, shift in (("a", 0), ("b", 1))}
  row = last_row(root, *(f"{variant}={folder}" for variant, of_one in folders.items() for folder in of_one))
  assert row[4:] == ["paired by seed", "2, 2"]
  shutil.rmtree(folders["b"][1])
  row = last_row(root, *(f"a={folder}" for folder in folders["a"]), f"b={folders['b'][0]}")
  assert row[3:] == ["-", "not comparable (seeds against starts)", "2, 3"]


def test_tables_of_gains_say_how_runs_were_compared():
  sequences = sequences_of(2)
  found = results_of(sequences, ["good", "bad", "worse"])

  def runs(numbers, *names):
    return pairing.Runs([found[name] for name in names], seeds(*numbers))

  compared = comparison.compare("plain", sequences, {
      "first": runs((0, 1), "good", "bad"), "same": runs((1, 0), "bad", "good"),
      "other": runs((0, 2), "good", "worse"), "once": [found["good"]]})
  text = tables.format_gains(compared, {"first": "", "same": "first", "other": "first", "once": "first"}, "variant")
  rows = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in text.splitlines() if line[:1] == "|"}
  assert rows["same"] == "+0.000 to +0.000" and rows["first"] == rows["once"] == "-"
  assert text.split("\n\n")[1:] == ["over runs, paired by seed, 2 and 2 runs: same",
                                    "over runs, unpaired (seeds differ), 2 and 2 runs: other"]
  html = page.render(compared, "", {})
  assert "2, 2, unpaired (seeds differ)</td>" in html and "nan" not in tables.format_runs(compared)
