"""Memory: what is carried on from frame to frame to know the target by.

Its first look and a recent one, which the search windows are compared with; its appearance, by which places to search a
lost one are proposed; its size and its motion. Only what is surely seen is remembered.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from input_pipeline import geometry
from siamdff_jax.tracking import motion, proposals, sizes
from siamdff_jax.tracking.belief import Best, Verdict
from siamdff_jax.tracking.look import Seen
from siamdff_jax.tracking.settings import Settings


class MemoryState(flax.struct.PyTreeNode):
  """What is known of the target.

  Attributes:
    age: int32 [] frames since the first.
    template: what `SiamDFF.encode_template` returned for the first frame, leading axis 1, without "backbone".
    recent_template: the same for a recent frame; None without updates of the template.
    appearance: what proposals look for; None without tiles.
    size: of the target, and what the network says it is.
    motion: of the target's centre.
  """

  age: jax.Array
  template: dict[str, Any]
  recent_template: dict[str, Any] | None
  appearance: proposals.Appearance | None
  size: sizes.SizeState
  motion: motion.MotionState


def init(center_wh: jax.Array, image: jax.Array, wh: jax.Array, template: dict[str, Any],
         settings: Settings) -> MemoryState:
  """From the first frame.

  Args:
    center_wh: [4] the first box, frame pixels.
    image, wh, template: of it, as `look.template` returns them.
    settings: of the tracker.
  """
  appearance = None
  if settings.look.tiles:
    first = proposals.pattern(image, jnp.concatenate([jnp.full(2, image.shape[0] / 2), wh]))
    appearance = proposals.Appearance(first, first)
  return MemoryState(jnp.zeros((), jnp.int32), template, template if settings.memory.template_update else None,
                     appearance, sizes.init(center_wh[2:]), motion.init())


def template(state: MemoryState, presence: jax.Array, settings: Settings) -> dict[str, Any]:
  """What the search windows are compared with; `presence` [] of the last frame.

  A recent look helps a doubtful target, the first one measures the size of a clear one: boxes are as the template's
  box, and a recent one's is only a prediction.
  """
  if state.recent_template is None:
    return state.template
  share = jnp.where(presence < settings.memory.template_below, settings.memory.template_update, 0.0)

  def mixed(first: jax.Array, recent: jax.Array) -> jax.Array:
    return ((1 - share) * first + share * recent).astype(first.dtype)

  return jax.tree.map(mixed, state.template, state.recent_template) | {"mask": state.template["mask"]}


def update(state: MemoryState, seen: Seen, found: Best, last_wh: jax.Array, next_size: sizes.SizeState,
           proposal: jax.Array, verdict: Verdict, settings: Settings) -> MemoryState:
  """The memory after a frame, but for the recent look.

  Args:
    state: before it.
    seen, found: what was seen, and what of it was taken for the target.
    last_wh: [2] the target's size before, frame pixels.
    next_size: what it is if the target is there.
    proposal: [4] where the target is if it is there, centre and size in frame pixels.
    verdict: whether it is there.
    settings: of the tracker.
  """
  way = proposal[:2] - seen.windows[found.window, :2]
  return state.replace(
      age=state.age + 1,
      appearance=_next_appearance(state, seen, found, proposal, verdict.sure),
      size=jax.tree.map(lambda new, old: jnp.where(verdict.present, new, old), next_size, state.size),
      motion=motion.update(state.motion, way, geometry.extent(last_wh), verdict.followed, settings.belief.deviation,
                           settings.memory.velocity_rate))


def with_recent_look(state: MemoryState, place: jax.Array, sure: jax.Array,
                     look: Callable[[jax.Array], dict[str, Any]], settings: Settings) -> MemoryState:
  """Now and then a surely seen target gives a recent look. A mistake lasts until the next one at most.

  Args:
    state: after the frame.
    place: [2] of the target, frame pixels.
    sure: bool [] whether it is surely seen.
    look: from [4] centre and size in frame pixels to a template.
    settings: of the tracker.
  """
  if state.recent_template is None:
    return state
  # Laid out for the network's own size of it: the box that is reported may differ from what is seen.
  center_wh = jnp.concatenate([place, state.size.predicted_wh])
  due = sure & (state.age % settings.memory.template_every == 0)
  return state.replace(recent_template=jax.lax.cond(due, lambda: look(center_wh), lambda: state.recent_template))


def _next_appearance(state: MemoryState, seen: Seen, found: Best, center_wh: jax.Array,
                     sure: jax.Array) -> proposals.Appearance | None:
  """What is surely seen is what to look for when it is lost."""
  if state.appearance is None:
    return None
  side, (place, length) = seen.images.shape[1], jnp.split(seen.windows[found.window], [2])
  scale = side / length
  centre = (center_wh[:2] - place) * scale + side / 2
  last = proposals.pattern(seen.images[found.window], jnp.concatenate([centre, center_wh[2:] * scale]))
  return state.appearance._replace(last=jnp.where(sure, last, state.appearance.last))
