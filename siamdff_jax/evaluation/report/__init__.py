"""What people look at: the report page with its pictures, tables for papers and spreadsheets, a table for the terminal.

    report.write(comparison, "out", data="Anti-UAV410 test", clips=report.make_clips(comparison, sequences, results))

writes into `out`: report.html (one file that needs nothing else), the charts as .png, scores.csv, sequences.csv,
scores.tex and comparison.md.
"""

import os
import pathlib
from collections.abc import Mapping

from input_pipeline.files import make_folder, write_atomically
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report import tables
from siamdff_jax.evaluation.report.clips import WORST, Clip, make_clips, worst_sequences
from siamdff_jax.evaluation.report.tables import format_parts, format_summary, format_table, metrics, write_metrics

__all__ = ["WORST", "Clip", "format_parts", "format_summary", "format_table", "make_clips", "metrics",
           "worst_sequences", "write", "write_metrics"]


def write(comparison: Comparison, out: str, data: str = "", clips: Mapping[str, Clip] | None = None) -> None:
  """Writes the report; files of an earlier report in the folder are overwritten, or removed where this one has none.

  Args:
    comparison: what to show.
    out: the folder, made where it does not exist.
    data: what was tracked, a few words for the page's heading.
    clips: by sequence name, see `make_clips`; a sequence without one shows its chart only.

  Raises:
    UserError: the folder cannot be written.
  """
  from siamdff_jax.evaluation.report import charts, page  # Here: the chart library takes a second to import.

  make_folder(out)
  files = {
      "scores.csv": tables.scores_csv(comparison),
      "sequences.csv": tables.sequences_csv(comparison),
      "scores.tex": tables.scores_tex(comparison),
      "comparison.md": format_summary(comparison) + "\n",
      "report.html": page.render(comparison, data, clips or {}),
  }
  for name, text in files.items():
    write_atomically(os.path.join(out, name), text)
  pictures = charts.pictures(comparison)
  for name in (f"{chart}.png" for chart in charts.PICTURES):
    if name in pictures:
      write_atomically(os.path.join(out, name), pictures[name])
    else:
      pathlib.Path(out, name).unlink(missing_ok=True)
