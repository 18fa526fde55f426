"""What people look at: metrics.json, curves.png and tables for the terminal."""

import io
import json
from collections.abc import Mapping

import numpy as np

from siamdff_jax.evaluation import metrics as measures
from siamdff_jax.evaluation.results import write_atomically

# Column title -> metric name, in the order of every table.
COLUMNS = {"AUC": "success_auc", "P@20": "precision_20", "P@5": "precision_5", "norm. P": "normalized_precision",
           "SA": "sa"}
# What a protocol can add; such a column is shown where the metrics have it.
FURTHER_COLUMNS = {"challenge": "challenge_accuracy"}


def write_metrics(path, metrics: Mapping):
  """Writes `Scores.metrics` as JSON, whole or not at all."""
  write_atomically(path, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")


def format_table(rows: Mapping[str, Mapping], extra: Mapping[str, Mapping[str, float]] | None = None,
                 title: str = "tracker") -> str:
  """A Markdown table that can be read in a terminal; rows stay in the order given, whatever their scores.

  Args:
    rows: by row name, `Scores.metrics` or one of its dicts of numbers.
    extra: further columns, e.g. {"fps": {tracker: 31.2}}; "-" where a row has no value.
    title: the heading of the first column.

  Returns:
    The table without a newline at the end. Metrics have three digits; "-" where a row lacks one.
  """
  numbers = {name: row.get("overall", row) for name, row in rows.items()}
  columns = dict(COLUMNS)
  columns.update({c: key for c, key in FURTHER_COLUMNS.items() if any(key in row for row in numbers.values())})
  extra = extra or {}
  table = [[title, *columns, *extra]]
  for name, row in numbers.items():
    scores = [f"{row[key]:.3f}" if key in row else "-" for key in columns.values()]
    table.append([name, *scores, *(_short(values.get(name)) for values in extra.values())])
  widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
  rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
  return "\n".join("| " + " | ".join(_padded(line, widths)) + " |" for line in [table[0], rule, *table[1:]])


def plot_curves(path, curves: Mapping[str, Mapping[str, np.ndarray]]):
  """Draws the success, precision and normalised precision curves of trackers side by side.

  Args:
    path: the .png file to write.
    curves: by tracker name, `Scores.curves`. The legends, in the order given, hold the area under the success
      curve, the precision at 20 px and the normalised precision at 0.20.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # Takes a second to import and is needed only here.
  from matplotlib.figure import Figure

  legend_height = 0.4 + 0.18 * ((len(curves) + 1) // 2)  # Below the panels, so that it hides no curve.
  figure = Figure(figsize=(13.5, 4.3 + legend_height), dpi=110, layout="constrained")
  FigureCanvasAgg(figure)
  panels = (
      ("success", measures.SUCCESS_THRESHOLDS, "Success", "IoU threshold", "AUC", measures.area_under_curve),
      ("precision", measures.PRECISION_THRESHOLDS, "Precision", "centre error threshold (px)", "at 20 px",
       lambda curve: curve[20]),
      ("normalized_precision", measures.NORMALIZED_THRESHOLDS, "Normalised precision",
       "centre error threshold / target size", "at 0.20", lambda curve: curve[20]),
  )
  for axes, (key, thresholds, title, label, legend, summary) in zip(figure.subplots(1, 3), panels):
    for i, (name, tracker) in enumerate(curves.items()):
      # Ten colours, then the same ones dashed: names keep their look in all three panels.
      axes.plot(thresholds, tracker[key], color=f"C{i % 10}", linestyle=("-", "--", ":", "-.")[i // 10 % 4],
                linewidth=1.8, label=f"{name} [{summary(tracker[key]):.3f}]")
    axes.set(title=title, xlabel=label, ylabel="share of frames", xlim=(0, thresholds[-1]), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(title=legend, fontsize=8, title_fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))
  image = io.BytesIO()
  figure.savefig(image, format="png")
  write_atomically(path, image.getvalue())


def _padded(line, widths) -> list[str]:
  """Names to the left, numbers to the right."""
  return [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]


def _short(value) -> str:
  if value is None:
    return "-"
  return value if isinstance(value, str) else f"{value:.1f}"
