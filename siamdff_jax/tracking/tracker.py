"""The tracker as pure functions over an explicit state.

`init(variables, frame, box) -> state` and `step(variables, state, frame) -> (state, Output)`. A step has three parts:
`look` sees some windows of the frame, `belief` decides where the target is and whether it is there, `memory` keeps what
the target is known by. docs/tracker.md explains them on a page, `settings` has what can be set.
"""

from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp

from input_pipeline import geometry
from input_pipeline.errors import UserError
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.tracking import belief, look, memory, sizes
from siamdff_jax.tracking.configured import side_problems
from siamdff_jax.tracking.settings import SHIPPED, Settings


class TrackerState(flax.struct.PyTreeNode):
  """What is carried on from one frame to the next, by the part that it belongs to."""

  look: look.LookState
  belief: belief.BeliefState
  memory: memory.MemoryState


class Output(NamedTuple):
  """What a tracker says of a frame.

  Attributes:
    box: [4] xywh in frame pixels; the last known box while absent.
    score: [] presence probability times the best cell's score, 0..1.
    present: bool [].
  """

  box: jax.Array
  score: jax.Array
  present: jax.Array


class Tracker:
  """Binds a network and settings; holds no state of a track. All methods are jittable, and trackers with the same
  network and settings are equal: programs that take one as a static argument serve all of them.

  A frame is uint8 [H, W], grey levels. Where it is the top left part of a larger canvas [H, W], `shape` (int32 [2], its
  rows and columns) says so; the answers are those for the frame alone. `variables` are the network's.
  """

  def __init__(self, model: SiamDFF, settings: Settings = SHIPPED):
    """From a network and settings.

    Raises:
      UserError: a privileged network, which needs the answer as an input; a `search_side` that the network cannot see.
    """
    if model.prior_channel:
      raise UserError("a network with prior_channel sees the target's box as an input and cannot track")
    if found := side_problems(settings.look.search_side, model.search_side, "tracker"):
      raise UserError("; ".join(found))
    self.model, self.settings = model, settings
    self.sides = look.Sides(model.template_side, settings.look.search_side or model.search_side)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Tracker) and (self.model, self.settings) == (other.model, other.settings)

  def __hash__(self) -> int:
    return hash((self.model, self.settings))

  def init(self, variables: Any, frame: jax.Array, box: jax.Array, shape: jax.Array | None = None) -> TrackerState:
    """Starts on a frame [H, W]; box [4] xywh in pixels."""
    shape = _shape(frame, shape)
    center_wh = geometry.xywh_to_center_wh(jnp.asarray(box, jnp.float32))
    first = look.template(self.model, variables, frame, center_wh, shape)
    return TrackerState(look.init(frame, shape, self.settings.look), belief.init(center_wh),
                        memory.init(center_wh, *first, self.settings))

  def step(self, variables: Any, state: TrackerState, frame: jax.Array,
           shape: jax.Array | None = None) -> tuple[TrackerState, Output]:
    """One frame [H, W] further: `search` where the target may be elsewhere and there are tiles, else `follow`."""
    shape = _shape(frame, shape)
    state, jump = self.moved_with_camera(state, frame, shape)
    if not self.settings.look.tiles:
      return self.follow(variables, state, frame, shape)
    return jax.lax.cond(self.is_elsewhere(state, jump), lambda: self.search(variables, state, frame, shape, jump),
                        lambda: self.follow(variables, state, frame, shape))

  def chunk(self, variables: Any, state: TrackerState, frames: jax.Array) -> tuple[TrackerState, Output]:
    """`step` over frames [T, H, W] as one program (`lax.scan`); outputs have a leading axis T."""
    return jax.lax.scan(lambda s, frame: self.step(variables, s, frame), state, frames)

  def moved_with_camera(self, state: TrackerState, frame: jax.Array,
                        shape: jax.Array) -> tuple[TrackerState, look.Jump]:
    """The state with the target's place moved as the background has, where the camera has jumped."""
    center_wh = state.belief.center_wh
    next_look, jump = look.camera_jump(state.look, frame, shape, center_wh[:2], look.side(center_wh[2:], self.sides))
    return state.replace(look=next_look, belief=belief.moved(state.belief, jump.moved)), jump

  def is_elsewhere(self, state: TrackerState, jump: look.Jump) -> jax.Array:
    """bool []: whether the target may be outside of the search window: it is lost, or the camera has jumped."""
    return belief.is_lost(state.belief, self.settings.belief) | jump.happened

  def follow(self, variables: Any, state: TrackerState, frame: jax.Array,
             shape: jax.Array) -> tuple[TrackerState, Output]:
    """One frame further after `moved_with_camera`, looking at the search window."""
    windows = look.Windows(self.search_window(state, shape))
    seen = self.see(variables, state, frame, shape, windows.stacked())
    state, output, sure = self.decide(state, seen, windows, shape)
    remembered = memory.with_recent_look(
        state.memory, state.belief.center_wh[:2], sure,
        lambda center_wh: look.template(self.model, variables, frame, center_wh, shape)[2], self.settings)
    return state.replace(memory=remembered), output

  def search(self, variables: Any, state: TrackerState, frame: jax.Array, shape: jax.Array,
             jump: look.Jump) -> tuple[TrackerState, Output]:
    """One frame further after `moved_with_camera`, looking at the search window, at the place it had before a jump that
    is not sure, and at all tiles. Of a target that is not lost the tiles tell nothing; if it is in neither place after
    a jump, it is lost and may be anywhere.
    """
    assert state.memory.appearance is not None, "only trackers with tiles search"
    window, lost_for = self.search_window(state, shape), belief.lost_for(state.belief, self.settings.belief)
    windows = look.all_windows(window, jump, frame, shape, state.memory.appearance, state.belief.center_wh, lost_for,
                               self.settings.look)
    seen = self.see(variables, state, frame, shape, windows.stacked())
    state, output, _ = self.decide(state, seen, windows, shape)
    anywhere = look.frames_to_cover(window[2], shape, self.settings.look)
    after = belief.lost_at_once(state.belief, jump.happened & ~output.present, anywhere, self.settings.belief)
    return state.replace(belief=after), output

  def search_window(self, state: TrackerState, shape: jax.Array) -> jax.Array:
    """[3] centre and side, frame pixels: about the last place, or about the one to be confirmed."""
    now = state.belief
    return look.search_window(now.place, now.center_wh[2:], belief.lost_for(now, self.settings.belief), now.pending,
                              shape, self.sides, self.settings.look)

  def see(self, variables: Any, state: TrackerState, frame: jax.Array, shape: jax.Array,
          windows: jax.Array) -> look.Seen:
    """What the network sees in windows [K, 3] of a frame: centre and side, frame pixels."""
    template = memory.template(state.memory, state.belief.presence, self.settings)
    return look.see(self.model, variables, template, frame, shape, windows, self.sides.search)

  def decide(self, state: TrackerState, seen: look.Seen, windows: look.Windows,
             shape: jax.Array) -> tuple[TrackerState, Output, jax.Array]:
    """The state after what was seen in the windows, but for a recent look; bool [] whether the target surely was."""
    before, known, settings = state.belief, state.memory, self.settings
    wh = before.center_wh[2:]
    nearness = belief.expected(known.motion, seen, wh, settings.belief)
    found = belief.best(before, seen, windows, nearness, settings.belief)
    scale = seen.windows[found.window, 2] / look.side(wh, self.sides)
    next_size = sizes.update(known.size, found.wh, found.quality, scale, settings.memory)
    limit = shape[::-1].astype(jnp.float32)
    proposal = jnp.concatenate([jnp.clip(found.centre, 0, limit), jnp.minimum(next_size.wh, limit)])
    after, verdict = belief.update(before, found, proposal, settings.belief)
    remembered = memory.update(known, seen, found, wh, next_size, proposal, verdict, settings)
    output = Output(geometry.center_wh_to_xywh(after.center_wh), after.presence * found.cell_score, verdict.present)
    return state.replace(belief=after, memory=remembered), output, verdict.sure


def _shape(frame: jax.Array, shape: jax.Array | None) -> jax.Array:
  """int32 [2] rows and columns."""
  return jnp.asarray(frame.shape if shape is None else shape, jnp.int32)
