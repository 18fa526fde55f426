"""report.html: one file with everything in it, which opens without a network."""

import base64
import os
from collections.abc import Mapping

import jinja2
import markupsafe
import numpy as np

from siamdff_jax.evaluation import analysis
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report import charts, tables
from siamdff_jax.evaluation.report.clips import WORST, Clip, worst_sequences
from siamdff_jax.evaluation.report.styles import TRUTH_COLOUR, styles

_SIGNIFICANT = 0.05
_MOST_LISTED = 15  # Pairs of trackers; a longer list is folded away.


def render(comparison: Comparison, data: str, clips: Mapping[str, Clip]) -> str:
  """The page as text; arguments as of `report.write`. What is in it never looks at the clock: same input, same page."""
  folder = jinja2.FileSystemLoader(os.path.dirname(__file__))
  environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                   lstrip_blocks=True)
  environment.filters.update(score=_score, share=_share, signed=_signed, short=_short, sort=_sort)
  worst = [_worst(comparison, name, clips.get(name)) for name in worst_sequences(comparison, WORST)]
  shown = charts.page_charts(comparison)
  specifications = {**shown, **{f"overlap-{i}": charts.overlap_chart(comparison, entry["name"])
                                for i, entry in enumerate(worst)}}
  names = tables.ranking(comparison)
  frames = sum(len(overlap) for overlap in comparison.overlaps[names[0]].values())
  return environment.get_template("page.html").render(
      data=data, protocol=comparison.protocol, main=tables.metric_title(comparison.main), frames=frames,
      trackers=names, sequences=comparison.sequences, left_out=comparison.left_out, missing=comparison.missing,
      styles=styles(comparison), truth=TRUTH_COLOUR,
      runs={name: runs for name in names if (runs := comparison.runs(name))},
      scores=_scores(comparison), pairs=_pairs(comparison), matrix=_matrix(comparison), folded=_MOST_LISTED,
      shown=shown, curves=[name for name in charts.CURVES if name in shown],
      groups=[name for name, _ in charts.GROUPS.values() if name in shown],  # The longest one first.
      failures=[_failures(comparison, name) for name in names], lost=analysis, presence=comparison.presence,
      recovery=comparison.recovery, sizes=comparison.groups.get("target size", ()),
      rows=_sequences(comparison), worst=worst, specifications=specifications,
      # The only text that is put in as it is; an end tag inside of it would end the script.
      library=markupsafe.Markup(charts.library().replace("</script", "<\\/script")))


def _scores(comparison: Comparison) -> dict:
  """The score table: {"titles": by metric, "rows": [(tracker, [(estimate, place 0, 1, ... or None)])]}."""
  keys = tables.metric_names(comparison)
  place = {key: tables.places(comparison, key) for key in keys}
  return {"titles": {key: tables.metric_title(key) for key in keys},
          "rows": [(name, [(comparison.estimates[name][key], place[key].get(name)) for key in keys])
                   for name in tables.ranking(comparison)]}


def _pairs(comparison: Comparison) -> list[dict]:
  """Every two trackers, the better one first; the surest differences first."""
  names = tables.ranking(comparison)
  pairs = [{"a": a, "b": b, **_difference(comparison, a, b)} for i, a in enumerate(names) for b in names[i + 1:]]
  return sorted(pairs, key=lambda pair: (np.nan_to_num(pair["p"], nan=2), -abs(pair["value"])))


def _matrix(comparison: Comparison) -> list[tuple[str, list[dict | None]]]:
  """(tracker, its difference to each tracker, None to itself), both by rank."""
  names = tables.ranking(comparison)
  return [(a, [None if a == b else _difference(comparison, a, b) for b in names]) for a in names]


def _difference(comparison: Comparison, a: str, b: str) -> dict:
  """The difference a - b, whichever way round it is stored."""
  if (a, b) in comparison.differences:
    value, low, high, p = comparison.differences[a, b]
  else:
    value, high, low, p = comparison.differences[b, a]
    value, low, high = -value, -low, -high
  return {"value": value, "low": low, "high": high, "p": p, "sure": p < _SIGNIFICANT,
          "runs": comparison.between_runs(a, b)}


def _failures(comparison: Comparison, name: str) -> dict:
  """How one tracker loses targets, over all sequences."""
  found = comparison.failures[name]
  first = [failed.first for failed in found.values() if failed.first is not None]
  losses = sum(failed.losses for failed in found.values())
  visible = sum((~np.isnan(overlap)).sum() for overlap in comparison.overlaps[name].values())
  return {"name": name, "lost": len(first) / len(found), "first": float(np.median(first)) if first else np.nan,
          "losses": losses, "lost_frames": sum(failed.lost_frames for failed in found.values()) / max(visible, 1),
          "longest": max(failed.longest for failed in found.values()),
          "recovered": sum(failed.recovered for failed in found.values()) / losses if losses else np.nan,
          "at_end": sum(failed.lost_at_end for failed in found.values()) / len(found)}


def _sequences(comparison: Comparison) -> list[dict]:
  """The table of sequences, the worst first."""
  names = tables.ranking(comparison)
  rows = []
  for sequence in worst_sequences(comparison, len(comparison.sequences)):
    scores = [comparison.scores[name].metrics["sequences"][sequence][comparison.main] for name in names]
    failures = [comparison.failures[name][sequence] for name in names]
    rows.append({"name": sequence, "frames": len(comparison.overlaps[names[0]][sequence]), "mean": np.mean(scores),
                 "lost": sum(failed.first is not None for failed in failures),
                 "cells": list(zip(scores, failures, strict=True))})
  return rows


def _worst(comparison: Comparison, name: str, clip: Clip | None) -> dict:
  """One of the sequences that are shown in full."""
  row = {"name": name, "frames": len(comparison.overlaps[comparison.trackers[0]][name]), "clip": clip,
         "best": max(comparison.trackers,
                     key=lambda tracker: comparison.scores[tracker].metrics["sequences"][name][comparison.main])}
  if clip:
    row.update(video=_data_url("video/mp4", clip.video), poster=_data_url("image/jpeg", clip.poster),
               strip=_data_url("image/jpeg", clip.strip))
  return row


def _data_url(kind: str, content: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _score(value: float) -> str:
  return "–" if np.isnan(value) else f"{value:.3f}"


def _signed(value: float) -> str:
  return "–" if np.isnan(value) else f"{value:+.3f}".replace("-", "−")


def _short(value: float) -> str:
  """A difference without its leading zero: "+.034"."""
  return _signed(value).replace("0.", ".", 1)


def _share(value: float) -> str:
  return "–" if np.isnan(value) else f"{100 * value:.0f} %"


def _sort(value: float) -> str:
  """A number for the attribute that tables are sorted by; empty for NaN, which always comes last."""
  return "" if np.isnan(value) else f"{value:.6g}"
