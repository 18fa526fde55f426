"""The report's charts, as Vega-Lite by altair: the page draws them itself, vl-convert makes the pictures.

Each chart is a single or layered view without a width, since only those can follow the width of the page. In the page
the parameter `picked` (a list of trackers, empty for all) says which ones stand out; it is set by the page's legend.
"""

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Ordered
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from siamdff_jax.evaluation import metrics as measures
from siamdff_jax.evaluation.analysis import Group
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report.styles import Style, styles

View = alt.Chart | alt.LayerChart | alt.FacetChart  # As far as altair says, `alt.layer` may give a FacetChart.
# By name in `Comparison.groups`: the picture's file name and the chart's heading.
GROUPS = {"attribute": ("attributes", "By attribute"), "target size": ("sizes", "By target size"),
          "target speed": ("speeds", "By target speed")}
# By name in `Scores.curves`: heading, x axis, thresholds, what a legend shows of a curve, and its name.
CURVES: dict[str, tuple[str, str, np.ndarray, Callable[[np.ndarray], float], str]] = {
    "success": ("Success", "IoU threshold", measures.SUCCESS_THRESHOLDS, measures.area_under_curve, "AUC"),
    "precision": ("Precision", "centre error threshold (px)", measures.PRECISION_THRESHOLDS,
                  lambda curve: curve[20], "at 20 px"),
    "normalized_precision": ("Normalised precision", "centre error threshold / target size",
                             measures.NORMALIZED_THRESHOLDS, lambda curve: curve[20], "at 0.20"),
}
PICTURES = ("curves", *(file for file, _ in GROUPS.values()), "failures", "presence", "reliability")
_BINS = 240  # Points of an overlap chart: about as many as can be told apart.
_MOST_LINES = 6  # More trackers than this are drawn as rows of colour: lines over time would cover each other.
_PICKED = "!length(picked) || indexof(picked, datum.tracker) >= 0"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def page_charts(comparison: Comparison) -> dict[str, dict]:
  """Specifications, where there is data, of CURVES, file names of GROUPS, "failures", "presence", "reliability"."""
  found = {**_curves(comparison, False), **_groups(comparison, False), **_others(comparison, False)}
  return {name: _for_page(chart) for name, chart in found.items()}


def overlap_chart(comparison: Comparison, sequence: str) -> dict:
  """IoU over the frames of one sequence, all trackers, with a mark where each first loses the target."""
  looks = styles(comparison)
  values = {name: comparison.overlaps[name][sequence] for name in looks}
  losses = [{"tracker": name, "frame": comparison.failures[name][sequence].first} for name in looks
            if comparison.failures[name][sequence].first is not None]
  if len(looks) <= _MOST_LINES:
    return _for_page(_overlap_lines(values, losses, looks))
  # Thousands of rectangles: too many for SVG elements.
  return {**_for_page(_overlap_rows(values, losses, looks)), "usermeta": {"embedOptions": {"renderer": "canvas"}}}


def pictures(comparison: Comparison) -> dict[str, bytes]:
  """The charts of the page that are about all sequences, as PNG files with legends, by file name: some of PICTURES."""
  found: dict[str, View | alt.HConcatChart] = {}
  panels = _curves(comparison, True)
  if panels:
    row = alt.hconcat(*(panel.properties(width=370) for panel in panels.values()))
    found["curves"] = row.resolve_scale(color="independent", strokeDash="independent")
  for name, chart in {**_groups(comparison, True), **_others(comparison, True)}.items():
    found[name] = chart.properties(width=560)
  return {f"{name}.png": vl_convert.vegalite_to_png(_specification(chart), vl_version=_version(), scale=2)
          for name, chart in found.items()}


@functools.cache  # It takes seconds, and robustness.py writes a report for each tracker.
def library() -> str:
  """The JavaScript that draws the specifications: Vega, Vega-Lite and Vega-Embed in one, as `window.vegaEmbed`."""
  return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_version())


def _version() -> str:
  """altair's "v6.4.1" as vl-convert wants it."""
  return ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _curves(comparison: Comparison, legend: bool) -> dict[str, alt.Chart]:
  looks = styles(comparison)
  out = {}
  for key, (title, axis, thresholds, summary, what) in CURVES.items():
    if any(key not in comparison.scores[name].curves for name in looks):
      continue
    curves = {name: comparison.scores[name].curves[key] for name in looks}
    numbers = {name: float(summary(curves[name])) for name in curves}
    order = sorted(looks, key=lambda name: -numbers[name]) if legend else list(looks)
    labels = {name: f"{name} [{number:.3f}]" for name, number in numbers.items()} if legend else None
    out[key] = alt.Chart(_lines({name: (thresholds, curve) for name, curve in curves.items()})).mark_line().encode(
        x=alt.X("x:Q", title=axis, scale=alt.Scale(nice=False)),
        y=alt.Y("y:Q", title="share of frames", scale=alt.Scale(domain=[0, 1])),
        **_line_looks({name: looks[name] for name in order}, labels, what),
    ).transform_flatten(["x", "y"]).properties(height=300, title=title)
  return out


def _groups(comparison: Comparison, legend: bool) -> dict[str, View]:
  return {GROUPS[key][0]: _group_chart(comparison, groups, legend).properties(title=GROUPS[key][1])
          for key, groups in comparison.groups.items() if groups}


def _group_chart(comparison: Comparison, groups: Ordered[Group], legend: bool) -> View:
  """A row for each group; in it a point with its interval for each tracker, one below the other."""
  looks = styles(comparison)
  labels = [f"{group.name}\n{group.sequences} seq." for group in groups]
  values = [{"group": label, "tracker": name, "value": _json(group.auc[name].value),
             "low": _json(group.auc[name].low), "high": _json(group.auc[name].high)}
            for group, label in zip(groups, labels, strict=True) for name in looks]
  step = max(14 if len(looks) <= 4 else 10 if len(looks) <= 10 else 6, 36 / len(looks))
  base = alt.Chart(_data(values)).encode(
      y=alt.Y("group:N", sort=labels, title=None,
              scale=alt.Scale(paddingInner=0.2, paddingOuter=0.05),
              axis=alt.Axis(ticks=False, labelPadding=6, labelLimit=140, labelExpr="split(datum.label, '\\n')")),
      yOffset=alt.YOffset("tracker:N", sort=list(looks)), opacity=_opacity(),
      color=_colour(looks, _legend(None, None) if legend else None),
      tooltip=["tracker:N", "group:N", *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("value", "low", "high"))])
  bars = base.mark_rule(strokeWidth=1.5).encode(
      x=alt.X("low:Q", title="success AUC with its 95 % interval", axis=alt.Axis(tickCount=6)), x2="high:Q")
  points = base.mark_point(filled=True, size=4 * min(step, 10)).encode(x="value:Q", shape=_shape(looks, legend))
  return alt.layer(bars, points).properties(height=1.2 * step * len(looks) * len(groups))


def _others(comparison: Comparison, legend: bool) -> dict[str, View]:
  out: dict[str, View] = {"failures": _failures(comparison, legend)}
  if comparison.presence:
    out["presence"] = _presence(comparison, legend)
  if any(len(found.reliability) for found in comparison.presence.values()):
    out["reliability"] = _reliability(comparison, legend)
  return out


def _failures(comparison: Comparison, legend: bool) -> alt.Chart:
  """The share of sequences on which each tracker has not yet lost the target, over their relative length."""
  looks = styles(comparison)
  steps = {}
  for name in looks:
    lost = sorted(failed.first / len(comparison.overlaps[name][sequence])
                  for sequence, failed in comparison.failures[name].items() if failed.first is not None)
    left = 1 - np.arange(len(lost) + 1) / len(comparison.sequences)
    steps[name] = ([0, *lost, 1], [*left, left[-1]])
  return alt.Chart(_lines(steps)).mark_line(interpolate="step-after").encode(
      x=alt.X("x:Q", title="part of the sequence", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
      y=alt.Y("y:Q", title="sequences not yet lost", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
      **_line_looks(looks, _names(looks) if legend else None),
  ).transform_flatten(["x", "y"]).properties(height=300, title="Until the first loss")


def _presence(comparison: Comparison, legend: bool) -> View:
  """ROC curves of the scores, and a point for each tracker's own decisions."""
  looks = {name: style for name, style in styles(comparison).items() if name in comparison.presence}
  found = {name: comparison.presence[name] for name in looks}
  x = alt.X("x:Q", title="false alarms (share of frames without target)", scale=alt.Scale(domain=[0, 1]))
  y = alt.Y("y:Q", title="detections (share of frames with target)", scale=alt.Scale(domain=[0, 1]))
  # `order`: points as given instead of sorted, which matters where several have the same x.
  lines = alt.Chart(_lines({name: (roc.false_alarms, roc.detections) for name, roc in found.items()}))
  looks_of_lines = _line_looks(looks, _names(looks) if legend else None)
  lines = lines.mark_line(order=False).encode(x=x, y=y, **looks_of_lines).transform_flatten(["x", "y"])
  points = alt.Chart(_data([
      {"tracker": name, "x": _json(roc.point[0]), "y": _json(roc.point[1])} for name, roc in found.items()]))
  points = points.mark_point(filled=True, size=70).encode(
      x=x, y=y, color=looks_of_lines["color"], shape=_shape(looks, False), opacity=_opacity(),
      tooltip=["tracker:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f")])
  return alt.layer(lines, points).properties(height=320, title="Is the target there?")


def _reliability(comparison: Comparison, legend: bool) -> View:
  """How often the target is there at a score, against the score; where both are equal the scores are calibrated."""
  looks = {name: style for name, style in styles(comparison).items()
           if name in comparison.presence and len(comparison.presence[name].reliability)}
  rows = [{"tracker": name, "x": _json(score), "y": _json(share), "frames": int(frames)}
          for name in looks for score, share, frames in comparison.presence[name].reliability]
  x = alt.X("x:Q", title="mean score", scale=alt.Scale(domain=[0, 1]))
  y = alt.Y("y:Q", title="share of frames with target", scale=alt.Scale(domain=[0, 1]))
  lines = alt.Chart(_data(rows)).mark_line().encode(
      x=x, y=y, **_line_looks(looks, _names(looks) if legend else None))
  points = alt.Chart(_data(rows)).mark_point(filled=True, size=40).encode(
      x=x, y=y, color=_colour(looks, None), shape=_shape(looks, False), opacity=_opacity(),
      tooltip=["tracker:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f"), "frames:Q"])
  ideal = alt.Chart(_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}])).mark_line(color="#999", strokeWidth=1).encode(x=x, y=y)
  return alt.layer(ideal, lines, points).properties(height=320, title="Is a score a probability?")


def _overlap_lines(values: Mapping[str, np.ndarray], losses: list[dict], looks: Mapping[str, Style]) -> View:
  lines = {name: (starts, means) for name, (starts, means, _) in _binned(values).items()}
  x = alt.X("x:Q", title="frame", scale=alt.Scale(nice=False, domain=[0, len(next(iter(values.values())))]))
  chart = alt.Chart(_lines(lines)).mark_line().transform_flatten(["x", "y"]).encode(
      x=x, y=alt.Y("y:Q", title="IoU", scale=alt.Scale(domain=[0, 1])), **_line_looks(looks, None))
  marks = alt.Chart(_data(losses)).mark_point(shape="cross", filled=True, size=70, angle=45).encode(
      x=alt.X("frame:Q"), y=alt.datum(0), color=_colour(looks, None), opacity=_opacity(),
      tooltip=["tracker:N", alt.Tooltip("frame:Q", title="first loss")])
  return alt.layer(chart, marks).properties(height=200)


def _overlap_rows(values: Mapping[str, np.ndarray], losses: list[dict], looks: Mapping[str, Style]) -> View:
  frames = len(next(iter(values.values())))
  data = [{"tracker": name, "x": starts, "end": ends, "y": [_json(mean) for mean in means]}
          for name, (starts, means, ends) in _binned(values).items()]
  y = alt.Y("tracker:N", sort=list(looks), title=None, axis=alt.Axis(labelLimit=90, ticks=False, domain=False))
  shade: dict[str, Any] = {"title": "IoU", "scale": alt.Scale(scheme="viridis", domain=[0, 1]),
           "legend": alt.Legend(orient="top", titleOrient="left", values=[0, 0.5, 1])}
  cells = alt.Chart(_data(data)).mark_rect(strokeWidth=0.7).transform_flatten(["x", "end", "y"]).transform_filter(
      "isValid(datum.y)").encode(
          x=alt.X("x:Q", title="frame", scale=alt.Scale(nice=False, domain=[0, frames]), axis=alt.Axis(grid=False)),
          x2="end:Q", y=y, color=alt.Color("y:Q", **shade),
          stroke=alt.Stroke("y:Q", **shade),  # Or gaps would shine through.
          opacity=_opacity(), tooltip=["tracker:N", alt.Tooltip("x:Q", title="frame"),
                                       alt.Tooltip("y:Q", title="IoU", format=".2f")])
  marks = alt.Chart(_data(losses)).mark_tick(color="#ff3b30", thickness=3).encode(
      x=alt.X("frame:Q"), y=y, opacity=_opacity(), tooltip=["tracker:N", alt.Tooltip("frame:Q", title="first loss")])
  return alt.layer(cells, marks).properties(height=15 * len(looks))


def _binned(values: Mapping[str, np.ndarray]) -> dict[str, tuple[list, list, list]]:
  """By tracker, [T] -> (first frames, means, end frames) of at most _BINS equal parts; NaN where no frame counts."""
  out = {}
  for name, overlap in values.items():
    edges = np.unique(np.linspace(0, len(overlap), min(_BINS, len(overlap)) + 1).round().astype(int))
    parts = [part[~np.isnan(part)] for part in np.split(overlap, edges[1:-1])]
    means = [float(part.mean()) if len(part) else math.nan for part in parts]
    out[name] = (edges[:-1].tolist(), means, edges[1:].tolist())
  return out


def _lines(curves: Mapping[str, tuple[Iterable, Iterable]]) -> alt.InlineData:
  """A row for each tracker with all of its points, a third of the size of a row for each point."""
  return _data([{"tracker": name, "x": [_json(v) for v in x], "y": [_json(v) for v in y]}
                for name, (x, y) in curves.items()])


def _data(rows: list[dict]) -> alt.InlineData:
  """Rows as one text, since altair copies and checks every number of a list several times."""
  return alt.InlineData(values=json.dumps(rows), format=alt.DataFormat(type="json"))


def _line_looks(looks: Mapping[str, Style], labels: Mapping[str, str] | None,
                title: str | None = None) -> dict[str, Any]:
  """Encodings of lines; `labels`: by tracker, the entries of a legend with that title, or None for no legend."""
  legend = None if labels is None else _legend(title, labels)
  dash = alt.StrokeDash("tracker:N", legend=legend, scale=alt.Scale(
      domain=list(looks), range=[list(style.dash) for style in looks.values()]))
  return {"color": _colour(looks, legend), "strokeDash": dash, "opacity": _opacity(), "tooltip": "tracker:N",
          "detail": "tracker:N"}


def _names(looks: Mapping[str, Style]) -> dict[str, str]:
  """The entries of a legend that has nothing but names."""
  return {name: name for name in looks}


def _legend(title: str | None, labels: Mapping[str, str] | None) -> alt.Legend:
  options: dict[str, Any] = {}
  if labels is not None:
    options = {"labelExpr": f"({json.dumps(labels)})[datum.label]", "symbolType": "stroke"}
  return alt.Legend(title=title, orient="bottom", columns=2 if title else 4, labelLimit=180, symbolStrokeWidth=2,
                    **options)


def _colour(looks: Mapping[str, Style], legend: alt.Legend | None) -> alt.Color:
  return alt.Color("tracker:N", legend=legend, title=None, scale=alt.Scale(
      domain=list(looks), range=[style.colour for style in looks.values()]))


def _shape(looks: Mapping[str, Style], legend: bool) -> alt.Shape:
  return alt.Shape("tracker:N", legend=_legend(None, None) if legend else None, title=None, scale=alt.Scale(
      domain=list(looks), range=[style.shape for style in looks.values()]))


def _opacity() -> Any:
  """Who is not picked is pale; the form is altair's."""
  return alt.condition(_PICKED, alt.value(1), alt.value(0.13))


def _for_page(chart: View) -> dict:
  return _specification(chart.properties(width="container", autosize=alt.AutoSizeParams(type="fit-x",
                                                                                        contains="padding")))


def _specification(chart: View | alt.HConcatChart) -> dict:
  chart = chart.add_params(alt.param(name="picked", value=[]))
  return chart.configure(font=_FONT).configure_view(stroke=None).configure_title(
      anchor="start", fontSize=14).configure_axis(titleFontWeight="normal").configure_line(strokeWidth=2).to_dict()


def _json(value: float) -> float | None:
  """A number as short as its use allows; None for NaN, which JSON lacks."""
  return None if math.isnan(value) else round(float(value), 4)
