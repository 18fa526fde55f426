"""Scores as Markdown, CSV, LaTeX and JSON."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.files import write_atomically
from siamdff_jax.evaluation import analysis, statistics
from siamdff_jax.evaluation.comparison import Comparison, Estimate
from siamdff_jax.evaluation.pairing import OverRuns

# Metric name -> column title, in the order of every table. The first ones are of all protocols but `vot`.
TITLES = {"success_auc": "AUC", "precision_20": "P@20", "precision_5": "P@5", "normalized_precision": "norm. P",
          "sa": "SA", "challenge_accuracy": "challenge", "ao": "AO", "sr_50": "SR.50", "sr_75": "SR.75",
          "accuracy": "accuracy", "failures": "failures", "failures_per_100": "per 100"}
# Of metrics that are only in the page.
_FURTHER_TITLES = {"success_50": "S@0.5", "normalized_precision_auc": "norm. P AUC", "presence_accuracy": "presence"}
# The others are better the higher they are.
LOWER_IS_BETTER = ("failures", "failures_per_100")
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          **{c: "\\" + c for c in "&%$#_{}"}}


def metrics(comparison: Comparison, tracker: str) -> dict:
  """All numbers of one tracker, JSON-ready: `Scores.metrics`, and of one-pass runs "recovery" and "target_size".

  "recovery": {"returns": int, "back": estimate, "lost_for_good": estimate}, see `analysis.Recovery`. "target_size": a
  dict for each bin with its "name", "sequences", "frames", "success_auc" and "precision_5", both estimates. An estimate
  is [value, low, high]; null where there is none. "left_out", where sequences of the data are missing: what is wrong
  with each, by name.
  """
  found = dict(comparison.scores[tracker].metrics)
  if comparison.left_out:
    found["left_out"] = dict(comparison.left_out)
  if tracker in comparison.recovery:
    recovery = comparison.recovery[tracker]
    found["recovery"] = {"returns": recovery.returns, "back": _listed(recovery.back),
                         "lost_for_good": _listed(recovery.lost_for_good)}
    found["target_size"] = [
        {"name": group.name, "sequences": group.sequences, "frames": group.frames,
         "success_auc": _listed(group.auc[tracker]), "precision_5": _listed(group.precision[tracker])}
        for group in comparison.groups.get("target size", ())]
  return found


def _listed(estimate: Estimate) -> list[float | None]:
  return [None if math.isnan(value) else value for value in estimate]


def write_metrics(path: str | os.PathLike[str], metrics: Mapping) -> None:
  """Writes `metrics` (or a part of them) as JSON, whole or not at all."""
  write_atomically(path, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")


def format_table(rows: Mapping[str, Mapping], extra: Mapping[str, Mapping[str, float | None]] | None = None,
                 title: str = "tracker") -> str:
  """A Markdown table that can be read in a terminal; rows stay in the order given, whatever their scores.

  Args:
    rows: by row name, `Scores.metrics` or one of its dicts of numbers.
    extra: further columns, e.g. {"fps": {tracker: 31.2}}; "-" where a row has no value, or None.
    title: the heading of the first column.

  Returns:
    The table without a newline at the end: the metrics of TITLES that a row has, with three digits; "-" where
    another row lacks one.
  """
  numbers = {name: row.get("overall", row) for name, row in rows.items()}
  keys = [key for key in TITLES if any(key in row for row in numbers.values())]
  extra = extra or {}
  table = [[title, *(TITLES[key] for key in keys), *extra]]
  for name, row in numbers.items():
    scores = [f"{row[key]:.3f}" if key in row else "-" for key in keys]
    table.append([name, *scores, *(_short(values.get(name)) for values in extra.values())])
  return markdown(table)


def format_summary(comparison: Comparison, extra: Mapping[str, Mapping[str, float | None]] | None = None) -> str:
  """What is printed of a comparison: `format_table` (see there for `extra`), what is missing, and further tables."""
  rows = {name: comparison.scores[name].metrics for name in comparison.trackers}
  return "\n\n".join(filter(None, [format_table(rows, extra), comparison.missing, format_parts(comparison),
                                   format_runs(comparison)]))


def format_gains(comparison: Comparison, against: Mapping[str, str], title: str) -> str:
  """A Markdown table of AUC and P@5 with intervals, and of what each row's AUC differs by from another's.

  Args:
    comparison: its trackers are the rows. Where one of them ran several times, the last column has intervals over runs,
      and a line below the table says which runs were compared with which.
    against: the tracker that each is compared with; "" for none. p is adjusted for the differences shown.
    title: the heading of the first column.
  """
  weights = np.array([comparison.scores[comparison.trackers[0]].weights[name] for name in comparison.sequences])
  auc = {tracker: np.array([comparison.scores[tracker].metrics["sequences"][name]["success_auc"]
                            for name in comparison.sequences]) for tracker in comparison.trackers}
  steps = statistics.differences(auc, weights, pairs=[(a, against[a]) for a in comparison.trackers if against[a]])
  table = [[title, "AUC (95 %)", "P@5 (95 %)", "against", "AUC difference (95 %)", "p (Holm)"]]
  if several := any(comparison.runs(tracker) for tracker in comparison.trackers):
    table[0].append("over runs (95 %)")
  pairings: dict[str, list[str]] = {}
  for tracker in comparison.trackers:
    row = [tracker, *(f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})"
                      for x in (comparison.estimates[tracker][key] for key in ("success_auc", "precision_5")))]
    if other := against[tracker]:
      gain = steps[tracker, other]
      row += [other, f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", f"{gain.p:.3f}"]
      if several and (between := comparison.between_runs(tracker, other, "success_auc")):
        row.append(bounds(between))
        pairings.setdefault(f"{between.how}, {between.runs[0]} and {between.runs[1]} runs", []).append(tracker)
    table.append([*row, *["-"] * (len(table[0]) - len(row))])
  notes = [f"over runs, {how}: {', '.join(trackers)}" for how, trackers in pairings.items()]
  return "\n\n".join([markdown(table), *notes])


def format_parts(comparison: Comparison) -> str:
  """Two Markdown tables: losses and returns, and scores by target size. Empty for reset-based runs."""
  if not comparison.recovery:
    return ""
  several = " (first run)" if any(comparison.runs(name) for name in comparison.trackers) else ""
  returns = [[f"tracker{several}", "returns", f"back in {analysis.BACK_FRAMES} frames", "lost for good"]]
  for name, found in comparison.recovery.items():
    returns.append([name, str(found.returns), _with_interval(found.back), _with_interval(found.lost_for_good)])
  groups = comparison.groups.get("target size", ())
  sizes = [[f"AUC / P@5 by size{several}", *(group.name for group in groups)],
           ["frames", *(str(group.frames) for group in groups)]]
  for name in comparison.trackers:
    sizes.append([name, *(f"{group.auc[name].value:.3f} / {group.precision[name].value:.3f}" for group in groups)])
  return "\n\n".join(map(markdown, [returns, sizes] if groups else [returns]))


def format_runs(comparison: Comparison) -> str:
  """A Markdown table of the differences between trackers that ran several times; empty where there are no two such."""
  title = metric_title(comparison.main)
  rows = [["tracker", "minus", f"{title} (95 % over sequences)", "over runs (95 %)", "how", "runs"]]
  for (a, b), gain in comparison.differences.items():
    if between := comparison.between_runs(a, b):
      rows.append([a, b, f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
                   bounds(between), between.how, f"{between.runs[0]}, {between.runs[1]}"])
  return markdown(rows) if len(rows) > 1 else ""


def ranking(comparison: Comparison) -> list[str]:
  """The trackers, best first by the main score; equal ones in the order given."""
  return sorted(comparison.trackers, key=lambda name: -comparison.estimates[name][comparison.main].value)


def metric_names(comparison: Comparison) -> list[str]:
  """The metrics of all trackers, the main one first, then in the order of TITLES, then the others."""
  known = list(comparison.estimates[comparison.trackers[0]])
  return sorted(known, key=lambda key: (key != comparison.main, [*TITLES, *known].index(key)))


def metric_title(key: str) -> str:
  """What a metric is called where people read it."""
  return {**TITLES, **_FURTHER_TITLES}.get(key, key.replace("_", " "))


def places(comparison: Comparison, key: str) -> dict[str, int]:
  """0 for the best trackers by a metric, 1 for the next ones, ...; equal where three digits are. Empty if all are."""
  shown = {name: round(comparison.estimates[name][key].value, 3) for name in comparison.trackers}
  order = sorted(set(shown.values()), reverse=key not in LOWER_IS_BETTER)
  return {name: order.index(value) for name, value in shown.items()} if len(order) > 1 else {}


def scores_csv(comparison: Comparison) -> str:
  """One line per tracker and metric: value, and the bounds of its 95 % interval (empty where there is none)."""
  return _csv(["tracker", "metric", "value", "low", "high"],
              [[name, key, *map(_number, comparison.estimates[name][key])]
               for name in comparison.trackers for key in metric_names(comparison)])


def sequences_csv(comparison: Comparison) -> str:
  """One line per sequence and tracker: all metrics, then the fields of `Failures` (first_loss empty if never lost)."""
  keys = metric_names(comparison)
  lines = []
  for sequence in comparison.sequences:
    for name in comparison.trackers:
      scores, failed = comparison.scores[name].metrics["sequences"][sequence], comparison.failures[name][sequence]
      lines.append([sequence, name, *(_number(scores[key]) for key in keys),
                    "" if failed.first is None else failed.first, failed.losses, failed.lost_frames, failed.longest,
                    failed.recovered, int(failed.lost_at_end), failed.returns, failed.back])
  return _csv(["sequence", "tracker", *keys, "first_loss", "losses", "lost_frames", "longest_loss", "recovered",
               "lost_at_end", "returns", "back"], lines)


def scores_tex(comparison: Comparison) -> str:
  r"""A `tabular` for \usepackage{booktabs}: the metrics of TITLES; the best bold, the second underlined."""
  keys = [key for key in metric_names(comparison) if key in TITLES]
  place = {key: places(comparison, key) for key in keys}
  lines = [r"% Needs \usepackage{booktabs}.", *([f"% {comparison.missing}."] if comparison.left_out else []),
           rf"\begin{{tabular}}{{l{'r' * len(keys)}}}", r"\toprule",
           " & ".join(["Tracker", *(_latex(TITLES[key]) for key in keys)]) + r" \\", r"\midrule"]
  for name in ranking(comparison):
    cells = [_latex(name)]
    for key in keys:
      cell = f"{comparison.estimates[name][key].value:.3f}"
      cells.append({0: rf"\textbf{{{cell}}}", 1: rf"\underline{{{cell}}}"}.get(place[key].get(name, -1), cell))
    lines.append(" & ".join(cells) + r" \\")
  return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _csv(header: Ordered[str], lines: Iterable[Ordered[object]]) -> str:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([header, *lines])
  return text.getvalue()


def _number(value: float) -> str:
  return "" if math.isnan(value) else f"{value:.6g}"


def _latex(text: str) -> str:
  return "".join(_LATEX.get(c, c) for c in text)


def markdown(table: list[list[str]]) -> str:
  """Lines of cells, the first one the head, as a Markdown table that can be read in a terminal."""
  widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
  rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
  return "\n".join("| " + " | ".join(_padded(line, widths)) + " |" for line in [table[0], rule, *table[1:]])


def bounds(difference: Estimate | OverRuns) -> str:
  """The interval of a difference; "-" where there is none."""
  return "-" if math.isnan(difference.low) else f"{difference.low:+.3f} to {difference.high:+.3f}"


def _with_interval(estimate: Estimate) -> str:
  if math.isnan(estimate.value):
    return "-"
  bounds = "" if math.isnan(estimate.low) else f" ({estimate.low:.2f}-{estimate.high:.2f})"
  return f"{estimate.value:.2f}{bounds}"


def _padded(line: Ordered[str], widths: Ordered[int]) -> list[str]:
  """Names to the left, numbers to the right."""
  return [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


def _short(value: float | None) -> str:
  return "-" if value is None else f"{value:.1f}"
