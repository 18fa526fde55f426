"""How much a tracker loses on what another camera might have shown: what `scripts/robustness.py` does."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from collections.abc import Sequence as Ordered

import altair as alt
import cv2
import numpy as np

from input_pipeline import files
from input_pipeline.conditions import AS_RECORDED, Condition, chosen, under
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from input_pipeline.simulator.contact_sheet import contact_sheet
from siamdff_jax import results
from siamdff_jax.evaluation import compare, comparison, protocols, running, trackers
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report import tables
from siamdff_jax.evaluation.usable import Usable
from siamdff_jax.results import Result

TABLE_FILE = "robustness.md"
log = logging.getLogger(__name__)


def assess(checkpoints: Ordered[str], baselines: Ordered[str], format: str, root: str, out: str, *,
           conditions: Ordered[str] = (), settings: Ordered[str] = (), only: str = "", streams: int = 8) -> str:
  """Tracks every sequence as recorded and under every condition, and writes what that costs each tracker.

  Scores are in the pixels as recorded, whatever the condition's. Goes on where an earlier run stopped. A sequence that
  cannot be loaded, or not be tracked to its end, is left out everywhere and named.

  Args:
    checkpoints, baselines: see `trackers.named`.
    format, root, only: the data set, see `usable.Usable`.
    out: gets <tracker>/<condition>/results, <tracker>/report.html (the conditions side by side), TABLE_FILE,
      robustness.png, and conditions.png, which shows the first sequence's first frame under each.
    conditions: names of `conditions.CONDITIONS`; none: all.
    settings, streams: see `evaluate.track`.

  Returns:
    The tables, which are printed.

  Raises:
    UserError: anything the user gave that does not work; and when everything is written, that sequences were left out.
  """
  ways = chosen(conditions)
  sources = trackers.named(checkpoints, baselines)
  usable = Usable(format, root, only)
  for name, source in sources.items():
    tracker, digest = trackers.runner(source, "ope", streams, settings)
    for number, (condition, how) in enumerate(ways.items(), 1):
      log.info("%s, %s: condition %d of %d", name, condition, number, len(ways))
      folder = os.path.join(out, name, condition)
      running.prepare(folder, tracker=digest, run="ope")
      running.track_usable(tracker, usable, [under(s, how) for s in usable.loaded], folder, run="ope")
  sequences, protocol = usable.sequences, protocols.of_format(format)
  compared: dict[str, Comparison] = {}
  for name in sources:
    folder = os.path.join(out, name)
    found = {condition: read_as_recorded(os.path.join(folder, condition), sequences, how)
             for condition, how in ways.items()}
    compared[name] = comparison.compare(protocol, sequences, found, usable.left_out)
    compare.write(compared[name], found, folder, clips=0, format=format, root=root)
  against = {condition: "" if condition == AS_RECORDED else AS_RECORDED for condition in ways}
  text = "\n\n".join([f"{name}: {len(sequences)} sequences, protocol {of_one.protocol}\n\n"
                      f"{tables.format_gains(of_one, against, 'condition')}" for name, of_one in compared.items()]
                     + [of_one.missing for of_one in [*compared.values()][:1] if of_one.left_out])
  files.write_atomically(os.path.join(out, TABLE_FILE), f"{text}\n")
  _write_pictures(out, compared, sequences[0], ways)
  print(text)
  usable.finish()
  return text


def read_as_recorded(folder: str, sequences: Ordered[Sequence], condition: Condition) -> list[dict[str, Result]]:
  """The runs' results in the pixels as recorded."""
  runs = results.read_folder(folder, [under(s, condition) for s in sequences])
  return [{name: Result(result.boxes / condition.scale, score=result.score) for name, result in run.items()}
          for run in runs]


def _write_pictures(out: str, compared: Mapping[str, Comparison], sequence: Sequence,
                    ways: Mapping[str, Condition]) -> None:
  shown = [(dataclasses.replace(under(sequence, how), name=name, attributes=()), 0) for name, how in ways.items()]
  encoded = cv2.imencode(".png", contact_sheet(shown))[1]
  files.write_atomically(os.path.join(out, "conditions.png"), encoded.tobytes())
  try:
    _chart(compared).save(os.path.join(out, "robustness.png"), scale_factor=2)
  except OSError as error:
    raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error


def _chart(compared: Mapping[str, Comparison]) -> alt.LayerChart | alt.FacetChart:
  """AUC under each condition with its interval, one row a condition."""
  rows = [{"tracker": name, "condition": condition, **of_one.estimates[condition]["success_auc"]._asdict()}
          for name, of_one in compared.items() for condition in of_one.trackers]
  rows = [{key: None if isinstance(x, float) and np.isnan(x) else x for key, x in row.items()} for row in rows]
  order = list(next(iter(compared.values())).trackers)
  base = alt.Chart(alt.InlineData(values=rows)).encode(
      y=alt.Y("condition:N", sort=order, title=None), yOffset=alt.YOffset("tracker:N", sort=list(compared)),
      color=alt.Color("tracker:N", sort=list(compared), title=None))
  interval = base.mark_rule(strokeWidth=2).encode(
      x=alt.X("low:Q", title="AUC (95 % over sequences)", scale=alt.Scale(domain=[0, 1])), x2="high:Q")
  return alt.layer(interval, base.mark_point(filled=True, size=50, opacity=1).encode(x="value:Q")).properties(
      width=480, height=alt.Step(max(8, 22 // len(compared)), **{"for": "offset"}))
