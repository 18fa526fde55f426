"""The report's files, read back by other means: csv, the page's own data, a video decoder, PNG headers."""

import csv
import html.parser
import io
import json
import struct

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest
from report_data import HOSTILE, comparison_of, results_of, sequences_of

from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape, from_labels
from siamdff_jax.evaluation import comparison, protocols, report
from siamdff_jax.evaluation.report import charts, clips, page, styles, tables
from siamdff_jax.results import Result


class Cells(html.parser.HTMLParser):
  """Tables by section, as rows of (data-value, text); scripts; the elements' names and what they refer to."""

  def __init__(self, page):
    super().__init__()
    self.tables, self.scripts, self.tags, self.addresses, self._open = {}, {}, set(), [], None
    self.feed(page)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    self.addresses += [attrs[key] for key in ("src", "href", "srcset", "poster", "data", "action") if key in attrs]
    if tag == "section":
      self._section = attrs["id"]
    elif tag == "table":
      self._rows = self.tables.setdefault(self._section, [])
    elif tag == "tr":
      self._rows.append([])
    elif tag in ("td", "th"):
      self._open = [attrs.get("data-value"), ""]
      self._rows[-1].append(self._open)
    elif tag == "script":
      self._open = [None, ""]
      self.scripts[attrs.get("id", len(self.scripts))] = self._open

  def handle_data(self, data):
    if self._open:
      self._open[1] += data.strip()

  def handle_endtag(self, tag):
    if tag in ("td", "th", "script"):
      self._open = None


def rows_of(specification):
  """By tracker, the data of a chart of one layer."""
  return {row["tracker"]: row for row in json.loads(specification["datasets"][specification["data"]["name"]])}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """(comparison, folder with its report) of three trackers, one with a hostile name, and two sequences."""
  sequences = sequences_of(2, frames=60)
  comparison = comparison_of(sequences, results_of(sequences, ["good", HOSTILE, "bad_50%"]))
  folder = tmp_path_factory.mktemp("report") / "new" / "folder"
  report.write(comparison, folder, data="A & <b>B</b>")
  return comparison, folder


def test_csv_files_hold_every_number(written):
  comparison, folder = written
  rows = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text())))
  assert len(rows) == sum(len(by_metric) for by_metric in comparison.estimates.values())
  for row in rows:
    expected = comparison.estimates[row["tracker"]][row["metric"]]
    np.testing.assert_allclose([float(row[key]) for key in ("value", "low", "high")], expected, rtol=1e-5)
  rows = list(csv.DictReader(io.StringIO((folder / "sequences.csv").read_text())))
  assert len(rows) == 6
  for row in rows:
    scores = comparison.scores[row["tracker"]].metrics["sequences"][row["sequence"]]
    assert {key: float(row[key]) for key in scores} == pytest.approx(scores, rel=1e-5, abs=1e-9)
    failed = comparison.failures[row["tracker"]][row["sequence"]]
    assert row["first_loss"] == ("" if failed.first is None else str(failed.first))
    assert [int(row[key]) for key in ("losses", "lost_frames", "longest_loss", "recovered", "lost_at_end", "returns",
                                      "back")] == [
        failed.losses, failed.lost_frames, failed.longest, failed.recovered, failed.lost_at_end, failed.returns,
        failed.back]


def test_latex_marks_and_escapes(written):
  comparison, folder = written
  lines = (folder / "scores.tex").read_text().splitlines()
  body = lines[lines.index(r"\midrule") + 1:lines.index(r"\bottomrule")]
  assert body[0].startswith("good & \\textbf{") and body[0].endswith(r"\\")
  assert any(line.startswith(r"bad\_50\% & ") for line in body)
  assert lines[1] == r"\begin{tabular}{lrrrrr}" and body[0].count("&") == body[2].count("&") == 5
  assert body[1].startswith(r"</script><script>") and r"\{\{ 7 * 7 \}\} \& 'quotes' \textbackslash{}" in body[1]
  second = sorted(estimates["success_auc"].value for estimates in comparison.estimates.values())[1]
  assert sum(rf"& \underline{{{second:.3f}}}" in line for line in body) == 1


def test_places():
  sequences = sequences_of(2)
  comparison = comparison_of(sequences, results_of(sequences, ["a", "b"]))
  assert tables.places(comparison, "success_auc") == {"a": 0, "b": 1}
  twins = comparison_of(sequences, dict.fromkeys("xy", results_of(sequences, ["a"])["a"]))
  assert tables.places(twins, "success_auc") == {}  # Nobody is best where all are equal.


def test_several_runs_show_their_range():
  sequences = sequences_of(2)
  results = results_of(sequences, ["good", "bad"])
  found = comparison.compare("plain", sequences, {"t": [results["good"], results["bad"]], "once": [results["good"]]})
  low, high = sorted(found.runs("t"))
  assert low < found.estimates["t"]["success_auc"].value < high and found.runs("once") == []
  text = " ".join(page.render(found, "", {}).split())
  assert f"of a run: t {low:.3f}–{high:.3f} (2). Size, speed, failures, returns and presence are of the first" in text
  parts = tables.format_parts(found)
  assert "tracker (first run)" in parts and "AUC / P@5 by size (first run)" in parts


def test_what_is_left_out_is_in_everything_that_is_read_by_people():
  sequences = sequences_of(2)
  runs = {"t": [results_of(sequences, ["t"])["t"]]}
  left_out = {HOSTILE: "no labels", **{f"s{i}": "no frames" for i in range(11)}}
  found = comparison.compare("plain", sequences, runs, left_out)
  assert "12 of 14 sequences were left out, the scores are of the other 2: " in found.missing
  assert "and 2 more are missing" in found.missing
  text = " ".join(page.render(found, "", {}).split())
  assert "<dd>2 of 14</dd>" in text and "12 of 14 sequences were left out" in text and "<script>alert" not in text
  assert found.missing in report.format_summary(found) and found.missing in tables.scores_tex(found)
  assert report.metrics(found, "t")["left_out"] == left_out
  whole = comparison.compare("plain", sequences, runs)
  assert whole.missing == "" and "left_out" not in report.metrics(whole, "t")
  assert "left out" not in page.render(whole, "", {}).split("<script")[0] + tables.scores_tex(whole)


def test_the_table_for_the_terminal_shows_what_a_row_has():
  rows = {"a": {"overall": {"ao": 0.5, "success_auc": 0.25}}, "b": {"success_auc": 1.0}}
  cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.format_table(rows).splitlines()]
  assert cells[0] == ["tracker", "AUC", "AO"] and cells[2:] == [["a", "0.250", "0.500"], ["b", "1.000", "-"]]


def test_names_in_the_page_are_only_text(written):
  text = (written[1] / "report.html").read_text()
  read = Cells(text)
  assert "img" not in read.tags and "<h1>A &amp; &lt;b&gt;B&lt;/b&gt;</h1>" in text
  assert HOSTILE in [row[0][0] for row in read.tables["scores"]]
  assert len(read.scripts) == 3  # The charts' data, their library, the page's own.
  assert HOSTILE in rows_of(json.loads(read.scripts["charts"][1])["success"])


def test_the_page_needs_nothing_else(written):
  text = (written[1] / "report.html").read_text()
  assert [address[:5] for address in Cells(text).addresses] == ["data:"]  # The (empty) icon.
  style = text.split("<style>")[1].split("</style>")[0]
  assert "@import" not in style and "url(" not in style


def test_sequences_stand_in_the_page_with_scores_and_losses(written):
  comparison, folder = written
  rows = Cells((folder / "report.html").read_text()).tables["sequences"][2:]
  means = {name: np.mean([s.metrics["sequences"][name]["success_auc"] for s in comparison.scores.values()])
           for name in comparison.sequences}
  assert [row[0][0] for row in rows] == sorted(means, key=means.get)  # The worst first.
  names = tables.ranking(comparison)
  for row in rows:
    assert float(row[2][0]) == pytest.approx(means[row[0][0]], rel=1e-5)
    for tracker, score, lost in zip(names, row[4::2], row[5::2], strict=True):
      expected = comparison.scores[tracker].metrics["sequences"][row[0][0]]["success_auc"]
      assert float(score[0]) == pytest.approx(expected, rel=1e-5) and score[1] == f"{expected:.3f}"
      first = comparison.failures[tracker][row[0][0]].first
      assert float(lost[0]) == (np.inf if first is None else first)


def test_differences_read_the_same_both_ways(written):
  comparison, folder = written
  rows = Cells((folder / "report.html").read_text()).tables["differences"]
  matrix = {row[0][1].lstrip("0123456789"): [cell[1] for cell in row[1:]] for row in rows[1:4]}
  names = tables.ranking(comparison)
  values = {name: comparison.estimates[name]["success_auc"].value for name in names}
  for a in names:
    for b, text in zip(names, matrix[a], strict=True):
      shown = float(text.replace("−", "-")) if text else 0.0
      assert shown == pytest.approx(values[a] - values[b], abs=6e-4)


def test_pictures(written):
  names = {path.name: path.read_bytes() for path in written[1].glob("*.png")}
  assert set(names) == {"curves.png", "attributes.png", "sizes.png", "speeds.png", "failures.png", "presence.png",
                        "reliability.png"}
  for content in names.values():
    width, height = struct.unpack(">II", content[16:24])
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[:2] == (height, width) and width > 800
    for colour in ("#2f7ed8", "#f0761b", "#1f9d55"):  # Each of the three trackers is drawn.
      assert (np.abs(image[..., ::-1].astype(int) - list(bytes.fromhex(colour[1:]))).max(-1) < 8).sum() > 50


def test_curves_and_losses_in_the_charts(written):
  comparison, _ = written
  specifications = charts.page_charts(comparison)
  rows = rows_of(specifications["success"])
  for name, scores in comparison.scores.items():
    np.testing.assert_allclose(rows[name]["y"], scores.curves["success"], atol=1e-4)
  for name, row in rows_of(specifications["failures"]).items():
    lost = sum(failed.first is not None for failed in comparison.failures[name].values())
    assert row["y"][0] == 1 and row["y"][-1] == 1 - lost / 2 and sorted(row["x"]) == row["x"]


def test_styles_tell_forty_trackers_apart():
  sequences = sequences_of(1, frames=3)
  names = [f"t{i}" for i in range(40)]
  results = dict.fromkeys(names, results_of(sequences, ["t"])["t"])
  looks = styles.styles(comparison_of(sequences, results))
  assert list(looks) == names and len(set(looks.values())) == 40
  assert len({style.colour for style in list(looks.values())[:10]}) == 10


def test_one_tracker_one_sequence_nothing_absent(tmp_path):
  sequences = sequences_of(1, frames=12, absent=False, attributes=())
  (tmp_path / "presence.png").write_bytes(b"of an earlier report on other data")
  report.write(comparison_of(sequences, results_of(sequences, ["only"])), tmp_path)
  read = Cells((tmp_path / "report.html").read_text())
  assert {"scores", "sequences"} <= set(read.tables) and not {"differences", "presence"} & set(read.tables)
  assert not (tmp_path / "presence.png").exists()
  assert "NaN" not in read.scripts["charts"][1]


def test_a_reset_based_comparison(tmp_path):
  sequences = sequences_of(2, frames=40, absent=False)
  comparison = comparison_of(sequences, results_of(sequences, ["good"]), protocol="vot")
  report.write(comparison, tmp_path)
  assert not (tmp_path / "curves.png").exists() and (tmp_path / "failures.png").exists()
  assert "accuracy" in (tmp_path / "comparison.md").read_text()


def test_same_input_same_page(written):
  comparison, folder = written
  assert page.render(comparison, "A & <b>B</b>", {}) == (folder / "report.html").read_text()


def test_a_folder_that_cannot_be_written(written, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file: cannot be written"):
    report.write(written[0], tmp_path / "file")


# Clips.


def test_a_clip_shows_truth_and_trackers_where_they_are(tmp_path):
  sequences = sequences_of(3, frames=130, pictures=True)
  results = results_of(sequences, ["good", "bad"])
  comparison = comparison_of(sequences, results)
  found = report.make_clips(comparison, sequences, results)
  assert set(found) == {s.name for s in sequences}
  (name,) = clips.worst_sequences(comparison, 1)
  clip = found[name]
  assert clip.trackers == ("bad", "good")
  first = comparison.failures["bad"][name].first
  assert clip.first <= first <= clip.last and clip.last - clip.first == 89
  assert len(clip.video) <= 300_000  # Of noise, the worst there is to encode.
  (tmp_path / "clip.mp4").write_bytes(clip.video)
  frames = imageio.mimread(tmp_path / "clip.mp4", memtest=False)
  assert len(frames) == 90 and frames[0].shape == (320, 724, 3)
  t = first + 3  # "bad" is away by now.
  sequence = next(s for s in sequences if s.name == name)
  looks = styles.styles(comparison)
  for box, colour in ((sequence.boxes[t], styles.TRUTH_COLOUR), (results["bad"][name].boxes[t], looks["bad"].colour)):
    # Whole frames are 160 x 128 and shown 2.5 times as large.
    x, y, w, h = (2.5 * box).round().astype(int)
    near = frames[t - clip.first][max(y - 3, 0):y + h + 4, max(x - 3, 0):x + w + 4].astype(int)
    assert (np.abs(near - list(bytes.fromhex(colour[1:]))).max(-1) < 90).sum() >= w
  # Magnified, 48 pixels become 320, and the truth is in the middle.
  zoomed = frames[t - clip.first][:, 404:].astype(int)
  rows, columns = np.nonzero(np.abs(zoomed - list(bytes.fromhex(styles.TRUTH_COLOUR[1:]))).max(-1) < 60)
  edges = [columns.min(), columns.max(), rows.min(), rows.max()]
  np.testing.assert_allclose(edges, 160 + 320 / 48 * np.array([-5, 5, -4, 4]), atol=4)
  strip, poster = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (clip.strip, clip.poster))
  assert strip.shape == (400, 600, 3) and poster.shape == (320, 724, 3)


def test_clips_draw_the_best_and_the_worst_of_many():
  # Shorter than a clip, sides that are odd.
  sequences = sequences_of(1, frames=4, shape=FrameShape(67, 101), pictures=True)
  names = [f"t{i}" for i in range(11)]
  results = results_of(sequences, names)
  comparison = comparison_of(sequences, results)
  clip, = report.make_clips(comparison, sequences, results).values()
  order = sorted(names, key=lambda name: comparison.scores[name].metrics["overall"]["success_auc"])
  assert set(clip.trackers) == {*order[:4], *order[-4:]} and (clip.first, clip.last) == (0, 3)


# Metrics as JSON and as tables.


def test_returns_and_sizes_in_the_page_and_in_the_files(written, tmp_path):
  comparison, folder = written
  read = Cells((folder / "report.html").read_text())
  lines = (folder / "comparison.md").read_text().splitlines()
  cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
  columns = [cell[1] for cell in read.tables["failures"][0]]
  for row in read.tables["failures"][1:]:
    name, found = row[0][0], comparison.recovery[row[0][0]]
    assert found.returns == 2  # The target comes back once in each of the two sequences.
    assert row[columns.index("returns")][1] == "2"
    assert float(row[columns.index("back in 15")][0]) == pytest.approx(found.back.value)
    assert float(row[columns.index("lost for good")][0]) == pytest.approx(found.lost_for_good.value)
    metrics = tables.metrics(comparison, name)
    tables.write_metrics(tmp_path / "metrics.json", metrics)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert metrics["recovery"] == {"returns": 2, "back": list(found.back), "lost_for_good": list(found.lost_for_good)}
    (size,) = metrics["target_size"]
    assert (size["name"], size["sequences"], size["frames"]) == ("8-16 px", 2, 2 * (59 - 2))
    shown = [[name, "2", f"{found.back.value:.2f} ({found.back.low:.2f}-{found.back.high:.2f})",
              f"{found.lost_for_good.value:.2f} ({found.lost_for_good.low:.2f}-{found.lost_for_good.high:.2f})"],
             [name, f"{size['success_auc'][0]:.3f} / {size['precision_5'][0]:.3f}"]]
    assert all(line in cells for line in shown)
    row = next(row for row in read.tables["groups"] if row[0][0] == name)
    assert [float(row[i][0]) for i in (1, 2)] == pytest.approx(
        [size["success_auc"][0], size["precision_5"][0]], rel=1e-5)
  assert {comparison.recovery[name].back.value for name in comparison.trackers} == {1.0}


def test_without_returns_there_is_no_share():
  sequences = sequences_of(1, frames=12, absent=False)
  comparison = comparison_of(sequences, results_of(sequences, ["only"]))
  assert tables.metrics(comparison, "only")["recovery"]["back"] == [None, None, None]
  assert "| only    |       0 |                 - | 0.00 (0.00-0.79) |" in report.format_parts(comparison)


def _scores(noise):
  random = np.random.default_rng(0)
  truth = np.tile(np.array([100.0, 100, 12, 9]), (200, 1))
  sequence = from_labels("s", None, truth, None, "test")
  return protocols.evaluate("antiuav", [sequence], {"s": Result(truth + random.normal(0, noise, truth.shape))})


def test_metrics_file(tmp_path):
  scores = _scores(1)
  report.write_metrics(tmp_path / "metrics.json", scores.metrics)
  assert json.loads((tmp_path / "metrics.json").read_text()) == scores.metrics


def test_table_keeps_the_given_order_and_fits():
  worse, better = _scores(3).metrics, _scores(1).metrics
  table = report.format_table({"worse": worse, "better": better, "bare": {"success_auc": 0.5}},
                              extra={"fps": {"worse": 12.34, "bare": None}})
  lines = table.splitlines()
  cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
  assert cells[0] == ["tracker", "AUC", "P@20", "P@5", "norm. P", "SA", "challenge", "fps"]
  assert [row[0] for row in cells[2:]] == ["worse", "better", "bare"]
  assert cells[2][1] == f"{worse['overall']['success_auc']:.3f}" and cells[2][-1] == "12.3"
  assert cells[3][-1] == "-" and cells[4][1:] == ["0.500", "-", "-", "-", "-", "-", "-"]
  assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 80
