"""What networks see in windows about the true place, under each condition: what `scripts/windows.py` does (our choice).

Tracks part by chance: a sequence is lost to something else or it is not, and a few of them decide between networks.
Here no window depends on what was seen before, so the same sequences tell smaller differences. What a tracker makes of
it, tracking alone shows.
"""

import functools
import json
import logging
import os
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from input_pipeline import files, geometry
from input_pipeline.conditions import AS_RECORDED, Condition, chosen, under
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import pairing, statistics, trackers
from siamdff_jax.evaluation.comparison import missing_note
from siamdff_jax.evaluation.report import tables
from siamdff_jax.evaluation.usable import Usable, frames_of, shape_of
from siamdff_jax.tracking import look as looking
from siamdff_jax.tracking import peaks, proposals
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.streams import canvas, on_canvas
from siamdff_jax.tracking.tracker import Tracker, TrackerState

TABLE_FILE, SCORES_FILE = "windows.md", "windows.json"
PLACES = 8  # Look-alikes to choose from.
log = logging.getLogger(__name__)


class Windows(NamedTuple):
  """What one network sees in the windows of one sequence under one condition.

  Attributes:
    iou: float [N] of the best cell's box with the true one, in windows with the target.
    present: float [N] log odds of presence there,
    absent: float [M] and in windows that look like the target and do not hold it.
  """

  iou: np.ndarray
  present: np.ndarray
  absent: np.ndarray


class Scores(NamedTuple):
  """What one network sees under one condition, by sequence.

  Attributes:
    iou: float [S] means.
    separation: float [S], the share of all sequences' windows without the target in which presence is lower than in a
      window with it; the mean over sequences, weighted by windows, is the area under the ROC curve.
  """

  iou: np.ndarray
  separation: np.ndarray


_Seen = dict[str, dict[str, Windows]]  # condition -> sequence.
_Trainings = Ordered[Mapping[str, Scores]]  # Of one network: of each training, by condition.


def assess(checkpoints: Ordered[str], format: str, root: str, out: str, *, conditions: Ordered[str] = (),
           settings: Ordered[str] = (), only: str = "", frames: int = 5) -> str:
  """Looks at every sequence with every network under every condition, and writes what they see and how they differ.

  A sequence that cannot be loaded or read is left out everywhere and named.

  Args:
    checkpoints: see `trackers.trainings`; of several trainings of a network the tables show the means.
    format, root, only: the data set, see `usable.Usable`.
    out: gets TABLE_FILE and SCORES_FILE, {network: [of each training {condition: {sequence: {"iou", "separation"}}}]}.
    conditions: names of `conditions.CONDITIONS`; none: all.
    settings: of the networks' trackers, see `configured.parse`.
    frames: of each sequence, evenly spaced among those after the first that show the target.

  Returns:
    The tables, which are printed.

  Raises:
    UserError: anything the user gave that does not work; and when everything is written, that sequences were left out.
  """
  ways, usable = chosen(conditions), Usable(format, root, only)
  sequences = _with_later_targets(usable.sequences, root)
  networks = trackers.trainings(checkpoints)
  found: dict[str, list[_Seen]] = {}
  broken: dict[str, UserError] = {}
  files.make_folder(out)
  for name, sources in networks.items():
    found[name] = []
    for source in sources:
      tracker, variables = load_tracker(source, settings)
      tracker = Tracker(tracker.model, tracker.settings.replace(tiles=PLACES))
      found[name].append(collect(tracker, variables, sequences, ways, frames, name, broken))
      usable.leave_out(broken)
  kept = [sequence.name for sequence in sequences if sequence.name not in broken]
  scores = {name: [{way: scored([windows[sequence] for sequence in kept]) for way, windows in one.items()}
                   for one in trainings] for name, trainings in found.items()}
  recorded = next(iter(found.values()))[0][AS_RECORDED]
  weights = np.array([len(recorded[sequence].iou) for sequence in kept])
  units = {name: pairing.of_seeds([trackers.seed(source) for source in sources]) for name, sources in networks.items()}
  text = "\n\n".join(filter(None, [_format(scores, weights, units), missing_note(usable.left_out, usable.total)]))
  files.write_atomically(os.path.join(out, TABLE_FILE), f"{text}\n")
  listed = {name: [{way: _listed(kept, of_one) for way, of_one in one.items()} for one in trainings]
            for name, trainings in scores.items()}
  files.write_atomically(os.path.join(out, SCORES_FILE), json.dumps(listed, indent=1).encode())
  print(text)
  usable.finish()
  return text


def _listed(sequences: Ordered[str], scores: Scores) -> dict[str, dict[str, float]]:
  """By sequence, JSON-ready."""
  return {sequence: {"iou": round(float(iou), 5), "separation": round(float(separation), 5)}
          for sequence, iou, separation in zip(sequences, *scores, strict=True)}


def _with_later_targets(sequences: Ordered[Sequence], root: str) -> list[Sequence]:
  """Those that have something to look at."""
  found = []
  for sequence in sequences:
    if sequence.visible[1:].any():
      found.append(sequence)
    else:
      log.warning("%s: left out, the target is in sight in the first frame only", sequence.name)
  if not found:
    raise UserError(f"{root}: no sequence shows its target after the first frame")
  return found


def collect(tracker: Tracker, variables: Any, sequences: Ordered[Sequence], ways: Mapping[str, Condition], frames: int,
            name: str = "", broken: dict[str, UserError] | None = None) -> _Seen:
  """What a network sees in each sequence under each condition.

  Windows with the target are at its true scale, up to a target size off its centre, the same for every network and
  condition; those without are about the place that most looks like the target among those that do not touch it.

  Args:
    tracker, variables: with `tiles`, which look for such places.
    sequences: visible in their first frame and in a later one.
    ways: the conditions.
    frames: see `assess`.
    name: of the network, for the progress bar.
    broken: sequences not to look at, by name; gets those whose frames cannot be read, or change their size. Nothing is
      given of all of these. Without it such frames raise the UserError.
  """
  init, seen_in = functools.partial(_init, tracker), functools.partial(_look, tracker)
  shapes = {way: [shape_of(under(sequence, how)) for sequence in sequences] for way, how in ways.items()}
  padded = {way: canvas(of_one) for way, of_one in shapes.items()}
  found: _Seen = {way: {} for way in ways}
  for number, sequence in enumerate(tqdm(sequences, desc=f"windows {name}".strip(), unit="sequence")):
    shown = None if sequence.name in (broken or {}) else _shown(sequence, frames, broken)
    if shown is None:
      continue
    for way, how in ways.items():
      seen, shape = under(sequence, how), shapes[way][number]
      rows = []
      for t, frame in shown.items():
        changed = on_canvas(how.change(frame, t), padded[way])
        arguments = changed, jnp.asarray(seen.boxes[t]), jnp.array(shape, jnp.int32)
        if t == 0:
          state = init(variables, *arguments)
        else:
          shift = np.random.default_rng([number, t]).uniform(-1, 1, 2) * np.sqrt(seen.boxes[t, 2:].prod())
          rows.append(seen_in(variables, state, *arguments, jnp.asarray(shift, jnp.float32)))
      iou, log_odds, free = map(np.array, zip(*jax.device_get(rows), strict=True))
      found[way][sequence.name] = Windows(iou, log_odds[:, 0], log_odds[free, 1])
  return found


def _shown(sequence: Sequence, count: int, broken: dict[str, UserError] | None) -> dict[int, np.ndarray] | None:
  """{t: frame}, the first one and those to look at; None where `broken` got the reason why there are none."""
  later = np.flatnonzero(sequence.visible[1:]) + 1
  wanted = np.unique(later[np.linspace(0, len(later) - 1, count).round().astype(int)])
  try:
    return {t: frame for t, frame in enumerate(frames_of(sequence)) if t == 0 or t in wanted}
  except UserError as error:
    if broken is None:
      raise
    broken[sequence.name] = error
    return None


def look(tracker: Tracker, variables: Any, state: TrackerState, frame: jax.Array, shape: jax.Array, target: jax.Array,
         centre: jax.Array, truth: jax.Array) -> tuple[looking.Seen, jax.Array, jax.Array, jax.Array]:
  """What the network sees in two windows at a target's scale: one with it, and one about the place that most looks
  like it among those whose window does not touch it.

  Args:
    tracker, variables: with `tiles`, which look for such places.
    state: of the sequence's first frame.
    frame, shape: as of `Tracker.step`.
    target: [4] centre and size for which the windows are laid out.
    centre: [2] of the window with the target.
    truth: [4] centre and size of the target in this frame; anywhere out of reach while it is absent.

  Returns:
    The look at both; of each [2] the best cell, as an index into n*n, and its ratio (see `peaks.ratio`); and whether
    there is a place without the target.
  """
  side = looking.side(target[2:], tracker.sides)
  assert state.memory.appearance is not None
  places = proposals.propose(frame, shape, state.memory.appearance, target, jnp.array(jnp.inf), side / 4, jnp.int32(0),
                             tracker.settings.look.tiles)
  free = (jnp.abs(places - truth[:2]) > (side + truth[2:]) / 2).any(-1)
  centres = jnp.stack([centre, places[free.argmax()]])
  seen = tracker.see(variables, state, frame, shape, jnp.concatenate([centres, jnp.full((2, 1), side)], 1))
  score = seen.cell_score.reshape(2, -1)
  best = score.argmax(1)
  ratios = jax.vmap(peaks.ratio, (0, 0, 0, None))(
      score, seen.centre.reshape(2, -1, 2), best, geometry.extent(target[2:]))
  return seen, best, ratios, free.any()


_init = jax.jit(Tracker.init, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _look(tracker: Tracker, variables: Any, state: TrackerState, frame: jax.Array, box: jax.Array, shape: jax.Array,
          shift: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(IoU, log odds [2] with the target and without, whether there is a place without)."""
  truth = geometry.xywh_to_center_wh(box)
  seen, best, ratios, free = look(tracker, variables, state, frame, shape, truth, truth[:2] + shift, truth)
  found = jnp.concatenate([x[0].reshape(-1, 2)[best[0]] for x in (seen.centre, seen.wh)])
  iou = geometry.iou(geometry.center_wh_to_ltrb(found), geometry.center_wh_to_ltrb(truth))
  return iou, peaks.log_odds(seen.presence_logit, ratios, tracker.settings.belief), free


def scored(sequences: Ordered[Windows]) -> Scores:
  """Of one network under one condition; equal log odds count half. NaN where there is no window without the target."""
  absent = np.concatenate([windows.absent for windows in sequences])

  def below(present: np.ndarray) -> np.ndarray:  # [N] the share of windows without the target that are.
    return (present[:, None] > absent).mean(1) / 2 + (present[:, None] >= absent).mean(1) / 2

  return Scores(np.array([windows.iou.mean() for windows in sequences]),
                np.array([below(windows.present).mean() if len(absent) else np.nan for windows in sequences]))


def _format(scores: Mapping[str, _Trainings], weights: np.ndarray,
            units: Mapping[str, Ordered[pairing.Unit]]) -> str:
  """A table for each network, against what was recorded; and one for each but the first, against the first.

  `units`: what the trainings of each network are.
  """
  total = f"{len(weights)} sequences, {weights.sum()} windows with the target"
  parts, names = [], list(scores)
  for name, trainings in scores.items():
    recorded = [{way: one[AS_RECORDED] for way in one if way != AS_RECORDED} for one in trainings]
    several = f", mean of {len(trainings)} trainings" if len(trainings) > 1 else ""
    parts.append(f"{name}: {total}{several}\n\n{_table(trainings, recorded, weights)}")
  for name in names[1:]:
    trainings, first = scores[name], scores[names[0]]
    title, of_both = total, None
    if len(trainings) > 1 and len(first) > 1:
      of_both = units[name], units[names[0]]
      how = pairing.over_runs([0] * len(trainings), of_both[0], [0] * len(first), of_both[1]).how
      title = f"{total}, over {len(trainings)} and {len(first)} trainings: {how}"
    parts.append(f"{name} minus {names[0]}: {title}\n\n{_table(trainings, first, weights, of_both)}")
  return "\n\n".join(parts)


def _table(trainings: _Trainings, against: _Trainings, weights: np.ndarray,
           units: tuple[Ordered[pairing.Unit], Ordered[pairing.Unit]] | None = None) -> str:
  """A row for each condition: the scores, and what they differ by from those `against`, where there are some.

  With `units`, what the trainings of both are, differences have an interval over trainings too.
  """

  def each(side: _Trainings, way: str, field: str) -> np.ndarray:  # [trainings, S]
    return np.array([getattr(one[way], field) for one in side])

  def means(side: _Trainings, way: str, field: str) -> np.ndarray:  # [trainings]
    return np.average(each(side, way, field), axis=1, weights=weights)

  pairs = [((0, way), (1, way)) for way in trainings[0] if way in against[0]]
  gains = {}
  for field in Scores._fields:
    values = {(number, way): each(side, way, field).mean(axis=0)
              for number, side in enumerate((trainings, against)) for way in side[0]}
    gains[field] = statistics.differences(values, weights, pairs=pairs)
  more = ["", ", difference (95 %)", ", p (Holm)", *([", over trainings (95 %)"] if units else [])]
  rows = [["condition", *(f"{title}{what}" for title in ("IoU", "separation") for what in more)]]
  for way in trainings[0]:
    row = [way]
    for field in Scores._fields:
      ours = means(trainings, way, field)
      row.append(f"{ours.mean():.3f}")
      if gain := gains[field].get(((0, way), (1, way))):
        row += [f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", f"{gain.p:.3f}"]
      else:
        row += ["-", "-"]
      if units:
        theirs = means(against, way, field)
        row.append(tables.bounds(pairing.over_runs(ours.tolist(), units[0], theirs.tolist(), units[1])))
    rows.append(row)
  return tables.markdown(rows)
