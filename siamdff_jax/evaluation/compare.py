"""Several trackers' result files side by side: what `scripts/compare.py` does."""

import os

from input_pipeline import datasets
from input_pipeline.errors import DataError
from siamdff_jax.evaluation import report, results
from siamdff_jax.evaluation.protocols import evaluate


def compare(format: str, root: str, protocol: str, entries: list[str], out: str) -> str:
  """Scores all, writes <name>.json, curves.png and comparison.md, and returns the table.

  Args:
    format, root: the data set, see `datasets.load`; annotations are enough.
    protocol: a name of `protocols.PROTOCOLS`.
    entries: "NAME=FOLDER" each, in the order of the table's rows.
    out: the folder to write to.

  Raises:
    DataError: an entry of another form, two of one name, or anything wrong with the files.
  """
  sequences = datasets.load(format, root, frames=False)
  scores = {}
  for entry in entries:
    name, _, folder = entry.partition("=")
    if not name or not folder or name in scores:
      raise DataError(f"--results: {entry!r}, expected NAME=FOLDER with a name of its own for each")
    inner = os.path.join(folder, "results")
    files = results.read_folder(inner if os.path.isdir(inner) else folder, sequences, format)
    scores[name] = evaluate(protocol, sequences, files)
  try:
    os.makedirs(out, exist_ok=True)
    for name, score in scores.items():
      report.write_metrics(os.path.join(out, f"{name}.json"), score.metrics)
    report.plot_curves(os.path.join(out, "curves.png"), {name: score.curves for name, score in scores.items()})
    table = report.format_table({name: score.metrics for name, score in scores.items()})
    with open(os.path.join(out, "comparison.md"), "w") as file:
      file.write(table + "\n")
  except OSError as error:
    raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
  return table
