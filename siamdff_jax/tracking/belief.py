"""Belief: where the target is, and whether it is there at all.

Of all cells of all windows one is taken for the target's. While the target is followed that is the best cell by the
Siamese family's rules: a score, a penalty on sudden changes of scale and aspect, a weight on the expected place.
Whether it is the target is another question, answered per window by log odds of presence. After some absent frames in a
row the target counts as lost. Then the expected place no longer matters, and the target is taken up again only where
enough evidence has come together over frames. Absent is reported as absent.
"""

from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp

from input_pipeline import geometry
from siamdff_jax.tracking import motion, peaks
from siamdff_jax.tracking.look import Seen, Windows
from siamdff_jax.tracking.settings import BeliefSettings

_LEVEL_RATE = 0.1  # How fast `BeliefState.level` follows, per frame (our choice).
_FAR = 0.25  # From the expected place, as `motion.nearness` has it: 1.7 deviations.


class BeliefState(flax.struct.PyTreeNode):
  """What is believed after a frame.

  Attributes:
    center_wh: [4] last known centre and size, frame pixels.
    presence: [] that the frame shows the target, 0..1.
    absent_for: int32 [] frames since the target was last seen.
    level: [] running mean of the log odds of presence while the target is followed.
    candidate: [2] where a lost target may be, frame pixels.
    evidence: [] of that, log odds, at least 0.
  """

  center_wh: jax.Array
  presence: jax.Array
  absent_for: jax.Array
  level: jax.Array
  candidate: jax.Array
  evidence: jax.Array

  @property
  def pending(self) -> jax.Array:
    """bool []: whether a lost target seems to be at `candidate`, which is to be confirmed."""
    return self.evidence > 0

  @property
  def place(self) -> jax.Array:
    """[2] where to look: the place to be confirmed, else the last known one; frame pixels."""
    return jnp.where(self.pending, self.candidate, self.center_wh[:2])


class Best(NamedTuple):
  """The cell, of all windows, that is taken for the target's.

  Attributes:
    window: int32 [] in which window it is.
    centre: [2] of the box predicted there, frame pixels.
    wh: [2] its size, frame pixels.
    cell_score: [] class times quality, 0..1.
    quality: [] that less the penalty for a sudden change.
    log_odds: [] that its window shows the target.
    evidence: [] over frames, that a lost target is there.
    doubtful: bool [] whether it is too far from the expected place for how little it stands out.
  """

  window: jax.Array
  centre: jax.Array
  wh: jax.Array
  cell_score: jax.Array
  quality: jax.Array
  log_odds: jax.Array
  evidence: jax.Array
  doubtful: jax.Array


class Verdict(NamedTuple):
  """What to make of a frame, bool [] each.

  Attributes:
    present: the target is there.
    followed: it is there and was not lost.
    sure: it is surely there, as it was in the frame before.
  """

  present: jax.Array
  followed: jax.Array
  sure: jax.Array


def init(center_wh: jax.Array) -> BeliefState:
  """From the first box, [4] centre and size in frame pixels."""
  return BeliefState(center_wh, presence=jnp.ones(()), absent_for=jnp.zeros((), jnp.int32), level=jnp.zeros(()),
                     candidate=center_wh[:2], evidence=jnp.zeros(()))


def is_lost(state: BeliefState, settings: BeliefSettings) -> jax.Array:
  """bool []: whether the target has been absent for so long that it may be anywhere."""
  return state.absent_for > settings.lost_after


def lost_for(state: BeliefState, settings: BeliefSettings) -> jax.Array:
  """int32 [] frames."""
  return jnp.maximum(state.absent_for - settings.lost_after, 0)


def moved(state: BeliefState, way: jax.Array) -> BeliefState:
  """With the target's place moved [2], as the background has; frame pixels."""
  return state.replace(center_wh=state.center_wh.at[:2].add(way), candidate=state.candidate + way)


def lost_at_once(state: BeliefState, lost: jax.Array, frames: jax.Array, settings: BeliefSettings) -> BeliefState:
  """Where `lost` (bool []), the target counts as lost for at least so many frames, int32 []."""
  least = jnp.where(lost, settings.lost_after + frames, 0)
  return state.replace(absent_for=jnp.maximum(state.absent_for, least))


def expected(motion_state: motion.MotionState, seen: Seen, wh: jax.Array, settings: BeliefSettings) -> jax.Array:
  """How near every cell [K, n, n] is to where the target is expected, 0..1, if it was last in the window's middle.

  Args:
    motion_state: of the target.
    seen: the windows.
    wh: [2] the target's size, frame pixels.
    settings: of the belief.
  """
  if not settings.deviation:
    return jnp.broadcast_to(motion.cosine_window(seen.cell_score.shape[-1]), seen.cell_score.shape)
  last = seen.windows[:, None, None, :2]
  return motion.nearness(motion_state, seen.centre, last, geometry.extent(wh), settings.deviation)


def best(state: BeliefState, seen: Seen, windows: Windows, nearness: jax.Array, settings: BeliefSettings) -> Best:
  """The best cell of the best window; `nearness` [K, n, n] as of `expected`."""
  lost, wh = is_lost(state, settings), state.center_wh[2:]
  quality = seen.cell_score * _change_penalty(seen.wh, wh, settings.scale_penalty)
  # Relative to the best where a target is that is not lost: in images unlike those of the training all scores are
  # lower, which must not lend the expected place more weight.
  near = quality / jnp.maximum(windows.near(quality).max(), peaks.LEAST_SCORE) * (1 - settings.window)
  near += nearness * settings.window
  cells = _flat(jnp.where(lost, quality, near)).argmax(1)  # One in every window.
  ratios = jax.vmap(peaks.ratio, (0, 0, 0, None))(_flat(quality), _flat(seen.centre), cells, geometry.extent(wh))
  log_odds = peaks.log_odds(seen.presence_logit, ratios, settings)
  every = jnp.arange(len(cells))
  evidence = _evidence(state, _flat(seen.centre)[every, cells], log_odds, settings)
  doubtful = ~lost & (_flat(nearness)[every, cells] < _FAR) & (ratios < settings.jump_ratio)
  followed = windows.near(jnp.where(doubtful, -jnp.inf, log_odds))
  window = jnp.where(lost, evidence.argmax(), followed.argmax())
  centre, of_wh, cell_score, of_quality = (
      _flat(x)[window, cells[window]] for x in (seen.centre, seen.wh, seen.cell_score, quality))
  return Best(window, centre, of_wh, cell_score, of_quality, log_odds[window], evidence[window], doubtful[window])


def update(state: BeliefState, found: Best, proposal: jax.Array,
           settings: BeliefSettings) -> tuple[BeliefState, Verdict]:
  """The belief after the frame: the target is at the proposal, [4] centre and size in frame pixels, or absent."""
  lost = is_lost(state, settings)
  presence = jnp.where(found.doubtful, 0.0, jax.nn.sigmoid(found.log_odds))
  enough = found.evidence >= settings.found_above
  present = jnp.where(lost, enough, presence >= settings.absent_below)
  verdict = Verdict(present, present & ~lost,
                    (state.absent_for == 0) & present & (presence >= settings.sure_above))
  return BeliefState(
      center_wh=jnp.where(present, proposal, state.center_wh), presence=presence,
      absent_for=jnp.where(present, 0, state.absent_for + 1),
      level=state.level + jnp.where(verdict.followed, _LEVEL_RATE * (found.log_odds - state.level), 0.0),
      candidate=proposal[:2], evidence=jnp.where(lost & ~enough, found.evidence, 0.0)), verdict


def _evidence(state: BeliefState, places: jax.Array, log_odds: jax.Array, settings: BeliefSettings) -> jax.Array:
  """[K] that a lost target is at places [K, 2], from log odds of its presence in this frame [K]: Page's cumulative
  sum ("Continuous Inspection Schemes", Biometrika 1954). Near the place of the frame before it counts on.

  A look-alike is there as long as one likes, but less like the target than the target was: what is asked of every
  frame is a share of that.
  """
  apart = jnp.abs(places - state.candidate).max(-1)
  before = jnp.where(apart <= geometry.extent(state.center_wh[2:]), state.evidence, 0.0)
  return jnp.maximum(before + log_odds - settings.found_share * jnp.maximum(state.level, 0.0), 0.0)


def _flat(x: jax.Array) -> jax.Array:
  """[K, n, n, ...] -> [K, n * n, ...]."""
  return x.reshape(len(x), -1, *x.shape[3:])


def _change_penalty(wh: jax.Array, last: jax.Array, k: float) -> jax.Array:
  """exp(-(r s - 1) k) of SiamRPN: r the change of aspect, s of the padded size, both >= 1. wh [..., 2], last [2]."""
  aspect = (last[0] / last[1]) / (wh[..., 0] / wh[..., 1])
  scale = geometry.template_side(wh) / geometry.template_side(last)
  change = jnp.maximum(aspect, 1 / aspect) * jnp.maximum(scale, 1 / scale)
  return jnp.exp(-(change - 1) * k)
