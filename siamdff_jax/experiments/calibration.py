"""Is presence a probability? Windows with and without the target, and the logistic regression that calibrates it."""

import json
import os
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered
from typing import Any, NamedTuple

import altair as alt
import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize
from scipy.special import expit
from tqdm import tqdm

from input_pipeline import files, geometry
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape, Sequence
from siamdff_jax.evaluation.usable import Usable, frames_of, shape_of
from siamdff_jax.experiments import windows
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.streams import canvas, on_canvas
from siamdff_jax.tracking.tracker import Tracker, TrackerState

_FRAMES = 40  # Per sequence, evenly spaced.
_BINS = 10


class Pairs(NamedTuple):
  """What tells presence in N windows, and whether the target is there.

  Attributes:
    logit: float64 [N] the network's presence logits.
    ratio: float64 [N] log peak-to-sidelobe ratios of its scores, see `peaks.ratio`.
    visible: bool [N] whether the window shows the target.
  """

  logit: np.ndarray
  ratio: np.ndarray
  visible: np.ndarray


class Calibration(NamedTuple):
  """presence_scale, presence_ratio and presence_bias of the tracker."""

  scale: float
  ratio: float
  bias: float


AS_TRAINED = Calibration(1.0, 0.0, 0.0)
_Row = tuple[float, float, bool]  # Of one window: logit, ratio, whether the target is there.


def collect(tracker: Tracker, variables: Any, sequences: Ordered[Sequence],
            broken: dict[str, UserError] | None = None) -> Pairs:
  """What tells presence, in windows at the target's scale.

  With the target: the window about its place one frame before. Without it: the same of absent frames, and in every
  frame the place that most looks like the target among those whose window does not touch it.

  Args:
    tracker, variables: what to calibrate; with `tiles`, which look for such places.
    sequences: visible in their first frame.
    broken: gets what is wrong with frames that cannot be read, by sequence, of which nothing is taken then.

  Raises:
    UserError: a sequence whose first frame does not show the target; without `broken`, also frames that cannot be read.
  """
  for sequence in sequences:
    if not sequence.visible[0]:
      raise UserError(f"{sequence.name}: the target is absent in the first frame, expected a box to start from")
  padded = canvas([shape_of(sequence) for sequence in sequences])
  init, look = jax.jit(tracker.init), jax.jit(lambda *x: _look(tracker, *x))
  rows: list[_Row] = []
  for sequence in tqdm(sequences, desc="calibrate", unit="sequence"):
    try:
      rows += _of_one(init, look, variables, sequence, padded)
    except UserError as error:
      if broken is None:
        raise
      broken[sequence.name] = error
  logit, ratio, visible = np.array(rows, np.float64).reshape(-1, 3).T
  return Pairs(logit, ratio, visible.astype(bool))


def _of_one(init: Callable, look: Callable, variables: Any, sequence: Sequence,
            padded: FrameShape) -> list[_Row]:
  """(logit, ratio, whether the target is there) of one sequence's windows."""
  out_of_reach = np.array([np.inf, np.inf, 0, 0], np.float32)
  wanted = set(np.unique(np.linspace(1, len(sequence) - 1, _FRAMES).round().astype(int)).tolist())
  shape, state = jnp.array(shape_of(sequence), jnp.int32), None
  rows: list[_Row] = []
  for t, frame in enumerate(frames_of(sequence)):
    if t == 0:
      state = init(variables, on_canvas(frame, padded), jnp.asarray(sequence.boxes[0]), shape)
    elif t in wanted:
      there = bool(sequence.visible[t])
      truth = geometry.xywh_to_center_wh(jnp.asarray(sequence.boxes[t])) if there else out_of_reach
      last = geometry.xywh_to_center_wh(jnp.asarray(sequence.boxes[np.flatnonzero(sequence.visible[:t])[-1]]))
      logits, ratios, holds_it, free = jax.device_get(look(
          variables, state, on_canvas(frame, padded), shape, last, truth))
      if holds_it or not there:
        rows.append((logits[0], ratios[0], there))
      if free:
        rows.append((logits[1], ratios[1], False))
  return rows


def _look(tracker: Tracker, variables: Any, state: TrackerState, frame: jax.Array, shape: jax.Array, last: jax.Array,
          truth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """(Logits [2], ratios [2], whether the first window holds the target, whether there is a second)."""
  seen, _, ratios, free = windows.look(tracker, variables, state, frame, shape, last, last[:2], truth)
  holds_it = (jnp.abs(truth[:2] - last[:2]) <= seen.windows[0, 2] / 2).all()
  return seen.presence_logit, ratios, holds_it, free


def fit(pairs: Pairs) -> Calibration:
  """By logistic regression, both kinds of windows with the same weight.

  Platt's (1999) targets, just inside of 0 and 1, keep it finite where the logits separate perfectly.

  Raises:
    UserError: only windows with, or only without the target.
  """
  counts = {kind: int((pairs.visible == kind).sum()) for kind in (True, False)}
  if not all(counts.values()):
    raise UserError(f"{counts[True]} windows with and {counts[False]} without the target, expected some of both")
  target = np.where(pairs.visible, (counts[True] + 1) / (counts[True] + 2), 1 / (counts[False] + 2))
  weight = _weights(pairs)
  features = np.stack([pairs.logit, pairs.ratio, np.ones_like(pairs.logit)], 1)

  def loss(line: np.ndarray) -> tuple[float, np.ndarray]:  # Cross-entropy and its gradient.
    logit = features @ line
    return weight @ (np.logaddexp(0, logit) - target * logit), features.T @ (weight * (expit(logit) - target))

  line = optimize.minimize(loss, np.zeros(3), jac=True, tol=1e-8).x
  return Calibration(*(float(value) for value in line))


def probability(pairs: Pairs, calibration: Calibration) -> np.ndarray:
  """What the tracker makes of windows, see `peaks.log_odds`."""
  return expit(calibration.scale * pairs.logit + calibration.ratio * pairs.ratio + calibration.bias)


def _weights(pairs: Pairs) -> np.ndarray:
  """[N] one half for all windows with the target together, one half for all without."""
  return np.where(pairs.visible, 0.5 / pairs.visible.sum(), 0.5 / (~pairs.visible).sum())


def reliability(presence: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, float]:
  """How often the target is there at a presence.

  Returns:
    float [B, 3] by tenth of 0..1 that holds something: mean presence, share that shows the target, share of all; and
    the expected calibration error (Naeini et al. 2015). All with the weights of `fit`.
  """
  weight, which = _weights(pairs), np.minimum((presence * _BINS).astype(int), _BINS - 1)
  mass, mean, there = (np.bincount(which, weight * x, _BINS) for x in (1.0, presence, pairs.visible))
  used = mass > 0
  table = np.stack([mean[used] / mass[used], there[used] / mass[used], mass[used]], 1)
  return table, float((np.abs(table[:, 0] - table[:, 1]) * table[:, 2]).sum())


def calibrate(checkpoint: str, format: str, root: str, out: str, *, only: str = "") -> Calibration:
  """Writes calibration.json, reliability.png and .html.

  Args:
    checkpoint: see `trained.find`.
    format, root, only: the data set, see `usable.Usable`.
    out: the folder to write to.

  Raises:
    UserError: anything the user gave that does not work; and when everything is written, that sequences were left out.
  """
  files.make_folder(out)
  usable = Usable(format, root, only)
  broken: dict[str, UserError] = {}
  tracker, variables = load_tracker(checkpoint)
  tracker = Tracker(tracker.model, tracker.settings.replace(tiles=windows.PLACES))
  pairs = collect(tracker, variables, usable.sequences, broken)
  usable.leave_out(broken)
  calibration = fit(pairs)
  tables = {name: reliability(probability(pairs, line), pairs)
            for name, line in {"as trained": AS_TRAINED, "calibrated": calibration}.items()}
  found = {**{f"presence_{name}": round(value, 4) for name, value in calibration._asdict().items()},
           **({"left_out": usable.left_out} if usable.left_out else {}),
           "windows": len(pairs.logit),
           "with_target": int(pairs.visible.sum()),
           "expected_calibration_error": {name: round(error, 4) for name, (_, error) in tables.items()}}
  files.write_atomically(os.path.join(out, "calibration.json"), json.dumps(found, indent=2))
  try:
    chart = _chart({f"{name}, error {error:.3f}": table for name, (table, error) in tables.items()})
    chart.save(os.path.join(out, "reliability.png"), scale_factor=2)
    chart.save(os.path.join(out, "reliability.html"), inline=True)
  except OSError as error:
    raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
  print(json.dumps(found))
  usable.finish()
  return calibration


def _chart(tables: Mapping[str, np.ndarray]) -> alt.LayerChart | alt.FacetChart:
  rows = [{"presence": name, "x": float(x), "y": float(y), "share": float(share)}
          for name, table in tables.items() for x, y, share in table]
  x = alt.X("x:Q", title="mean presence", scale=alt.Scale(domain=[0, 1]))
  y = alt.Y("y:Q", title="share of windows with the target", scale=alt.Scale(domain=[0, 1]))
  lines = alt.Chart(alt.InlineData(values=rows)).mark_line(point=alt.OverlayMarkDef(size=60)).encode(
      x=x, y=y, color=alt.Color("presence:N", title=None, legend=alt.Legend(orient="bottom", labelLimit=300)),
      tooltip=["presence:N", alt.Tooltip("x:Q", format=".3f"), alt.Tooltip("y:Q", format=".3f"),
               alt.Tooltip("share:Q", title="share of windows", format=".3f")])
  corners = alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])
  ideal = alt.Chart(corners).mark_line(color="#999").encode(x=x, y=y)
  return alt.layer(ideal, lines).properties(width=420, height=320, title="Is presence a probability?")
