"""Look: which windows of a frame are looked at, and what the network sees in them.

A window is a square of the frame at the target's own scale. A target that is followed is looked for in one, the search
window. One that is lost, or that a jump of the camera may have taken elsewhere, is also looked for in tiles: windows
about the places of the whole frame that look most like it, and others (`proposals`). Without tiles the search window
grows from frame to frame instead, until it covers the frame.
"""

import math
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp

from input_pipeline import geometry
from siamdff_jax import targets
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.tracking import egomotion, proposals
from siamdff_jax.tracking.crops import crop
from siamdff_jax.tracking.settings import LookSettings


class LookState(flax.struct.PyTreeNode):
  """What the next look needs of the last frame.

  Attributes:
    thumbnail: of it, see `egomotion.thumbnail`; None without camera compensation.
  """

  thumbnail: jax.Array | None


class Sides(NamedTuple):
  """Pixels of the crops that the network gets: of the template and of a search window."""

  template: int
  search: int


class Jump(NamedTuple):
  """Of the camera from the last frame to this one.

  Attributes:
    moved: [2] by how much the background has moved, frame pixels; zeros where it has not jumped.
    sure: bool [] whether that is hardly ever wrong.
  """

  moved: jax.Array
  sure: jax.Array

  @property
  def happened(self) -> jax.Array:
    """bool []."""
    return (self.moved != 0).any()


class Windows(NamedTuple):
  """The windows of one look: centre and side, frame pixels.

  Attributes:
    search: [3] where the target is expected.
    unmoved: [3] where it is if the camera did not jump after all; None where a target is only followed.
    tiles: [N, 3] all over the frame; None likewise.
  """

  search: jax.Array
  unmoved: jax.Array | None = None
  tiles: jax.Array | None = None

  def stacked(self) -> jax.Array:
    """[K, 3]: all of them as one batch."""
    parts = [self.search[None], None if self.unmoved is None else self.unmoved[None], self.tiles]
    return jnp.concatenate([part for part in parts if part is not None])

  def near(self, values: jax.Array) -> jax.Array:
    """Of values [K, ...] of all windows those of `search` and `unmoved`, where a target is that is not lost."""
    return values[:1 if self.unmoved is None else 2]


class Seen(NamedTuple):
  """What the network sees in K windows, per cell [K, n, n].

  Attributes:
    windows: [K, 3] centre and side, frame pixels.
    images: [K, S, S] the crops, grey levels.
    presence_logit: [K]
    cell_score: [K, n, n] class times quality, 0..1.
    centre: [K, n, n, 2] of the predicted box, frame pixels.
    wh: [K, n, n, 2] its size, frame pixels.
  """

  windows: jax.Array
  images: jax.Array
  presence_logit: jax.Array
  cell_score: jax.Array
  centre: jax.Array
  wh: jax.Array


def init(frame: jax.Array, shape: jax.Array, settings: LookSettings) -> LookState:
  """From the first frame [H, W] uint8; `shape`: its rows and columns where it is part of a larger canvas."""
  return LookState(egomotion.thumbnail(frame, shape) if settings.camera_compensation else None)


def side(wh: jax.Array, sides: Sides) -> jax.Array:
  """[] of the search window of a target of this size [2], frame pixels."""
  return geometry.template_side(wh) * sides.search / sides.template


def template(model: SiamDFF, variables: Any, frame: jax.Array, center_wh: jax.Array,
             shape: jax.Array) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
  """The template crop [S, S] about a box, the box's size in it [2], and what the network makes of both."""
  window = jnp.concatenate([center_wh[:2], geometry.template_side(center_wh[2:])[None]])
  image = crop(frame, window, model.template_side, shape)
  wh = center_wh[2:] * model.template_side / window[2]
  encoded: Any = model.apply(variables, image[None, :, :, None] / 255, wh[None], method="encode_template")
  return image, wh, encoded | {"backbone": {}}  # Only distillers look at the backbone's levels.


def see(model: SiamDFF, variables: Any, template: dict[str, Any], frame: jax.Array, shape: jax.Array,
        windows: jax.Array, crop_side: int) -> Seen:
  """What the network sees.

  Args:
    model, variables: the network.
    template: what the windows are compared with, leading axis 1.
    frame: uint8 [H, W].
    shape: int32 [2], its rows and columns.
    windows: [K, 3] centre and side, frame pixels.
    crop_side: pixels of their crops.
  """
  count = len(windows)
  scale = (crop_side / windows[:, 2])[:, None, None, None]  # Crop pixels per frame pixel.
  images = jax.vmap(crop, (None, 0, None, None))(jnp.asarray(frame), windows, crop_side, shape)
  for_each = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), template)
  out: Any = model.apply(variables, for_each, images[..., None] / 255, method="track")
  box = targets.boxes_from_ltrb(out["ltrb"], crop_side)  # [K, n, n, 4] sides
  centre = (box[..., :2] + box[..., 2:]) / 2 - crop_side / 2
  return Seen(windows, images, out["presence_logit"],
              jax.nn.sigmoid(out["class_logit"]) * jax.nn.sigmoid(out["quality_logit"]),
              windows[:, None, None, :2] + centre / scale, (box[..., 2:] - box[..., :2]) / scale)


def camera_jump(state: LookState, frame: jax.Array, shape: jax.Array, place: jax.Array, reach: jax.Array,
                ) -> tuple[LookState, Jump]:
  """How the background has moved since the last frame, where that is far against the search window: a jump. Less is
  none: it may be the camera following the target, seen or hidden.

  Args:
    state: of the last frame.
    frame, shape: as everywhere.
    place: [2] the target's last one, frame pixels; moved with the camera it stays within the frame.
    reach: [] side of the search window, frame pixels.
  """
  if state.thumbnail is None:
    return state, Jump(jnp.zeros(2), jnp.ones((), bool))
  thumbnail = egomotion.thumbnail(frame, shape)
  cells, sure = egomotion.shift(state.thumbnail, thumbnail)
  moved = cells * shape[::-1] / egomotion.SIDE
  moved = jnp.where(jnp.abs(moved).max() > reach / 4, moved, 0.0)
  moved = jnp.clip(place + moved, 0, shape[::-1]) - place
  return LookState(thumbnail), Jump(moved, sure)


def search_window(place: jax.Array, wh: jax.Array, lost_for: jax.Array, pending: jax.Array, shape: jax.Array,
                  sides: Sides, settings: LookSettings) -> jax.Array:
  """[3] the search window. Without tiles it grows while the target is lost, until it covers the frame from wherever it
  is, but for a place that is to be confirmed.

  Args:
    place: [2] its centre, frame pixels.
    wh: [2] of the target, frame pixels.
    lost_for: int32 [] frames.
    pending: bool [] whether a lost target seemed to be at `place` in the last frame.
    shape, sides, settings: as everywhere.
  """
  length = side(wh, sides)
  if not settings.tiles:
    grown = length * settings.growth ** lost_for.astype(jnp.float32)
    length = jnp.where(pending, length, jnp.minimum(grown, jnp.maximum(length, 2.0 * jnp.max(shape))))
  return jnp.concatenate([place, length[None]])


def all_windows(search: jax.Array, jump: Jump, frame: jax.Array, shape: jax.Array, appearance: proposals.Appearance,
                center_wh: jax.Array, lost_for: jax.Array, settings: LookSettings) -> Windows:
  """The search window [3], the place it had before a jump that is not sure, and the tiles."""
  reach = search[2] / 2 * settings.growth ** lost_for.astype(jnp.float32)
  places = proposals.propose(frame, shape, appearance, center_wh, reach, search[2] / 4, lost_for, settings.tiles)
  tiles = jnp.concatenate([places, jnp.full((len(places), 1), search[2])], 1)
  return Windows(search, search.at[:2].add(jnp.where(jump.sure, 0.0, -jump.moved)), tiles)


def frames_to_cover(length: jax.Array, shape: jax.Array, settings: LookSettings) -> jax.Array:
  """int32 [] lost frames after which tiles come from the whole frame, at least 1; they never do without growth."""
  if settings.growth <= 1:
    return jnp.ones((), jnp.int32)
  frames = jnp.log(2.0 * jnp.max(shape) / length) / math.log(settings.growth)
  return jnp.maximum(jnp.ceil(frames), 1).astype(jnp.int32)
