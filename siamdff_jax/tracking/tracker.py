"""The tracker as pure functions over an explicit state.

`init(variables, frame, box) -> state` and `step(variables, state, frame) -> (state, Output)`. Post-processing is the
Siamese family's: a penalty on sudden changes of scale and aspect, a window about the expected place, a size that
follows slowly. There is no minimum size. When presence is low for some frames the target counts as lost: the
window is off, and the target is taken up again only on enough evidence. It is looked for either in one window that
grows from frame to frame until it covers the frame, or (`tiles`) in windows at the target's own scale about the places
of the frame that look most like it and others. Absent is reported as absent.
"""

import math
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from input_pipeline import geometry
from input_pipeline.errors import UserError
from siamdff_jax import targets
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.tracking import egomotion, motion, peaks, proposals, sizes
from siamdff_jax.tracking.crops import crop
from siamdff_jax.tracking.setting_rules import check_tracker


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker` may set; the defaults are our choice (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      search_side=0,  # Pixels of the search crop, 8 n + 7; 0: as trained. More look further at the same scale.
      scale_penalty=0.04,  # k in exp(-(r s - 1) k), r and s the changes of aspect and of size (SiamRPN).
      window=0.3,  # Weight of the window about the expected place while tracking.
      motion=motion.default_config(),  # Which place is expected.
      size=sizes.default_config(),  # How the size follows the predictions.
      # Presence is sigmoid(scale * the network's logit + bias + ratio * the log peak-to-sidelobe ratio of its scores);
      presence_scale=1.0, presence_bias=0.0, presence_ratio=0.0,  # see scripts/calibrate.py.
      jump_ratio=0.0,  # The least such ratio where the target is far from the expected place.
      absent_below=0.35,  # Presence below this: the frame is reported as absent.
      sure_above=0.6,  # Presence above this: what is seen may serve as a recent look of the target.
      found_above=0.5,  # A lost target is taken up again where log odds of presence, summed up over frames, reach this,
      found_share=0.0,  # each less this share of what they were while it was followed.
      lost_after=5,  # Absent frames in a row after which the target counts as lost.
      growth=1.15,  # Per lost frame: of the search window, or of the region from which the tiles are taken.
      tiles=0,  # Windows over the whole frame in which a lost target is looked for; 0: in one window, which grows.
      camera_compensation=False,  # Whether the search window moves with the background when the camera jumps.
      template_update=0.0,  # Share of a recent look of the target in the template, at most one half; 0: the first only,
      template_below=1.0,  # where presence was below this in the frame before. Elsewhere the first look alone.
      template_every=10,  # Frames between two recent looks.
  ))


@flax.struct.dataclass
class TrackerState:
  """Attributes:

    center_wh: [4] last known centre and size, frame pixels.
    template: what `SiamDFF.encode_template` returned for the first frame, leading axis 1, without "backbone".
    recent_template: the same for a recent frame; None without updates of the template.
    size: of the target, and what the network says it is.
    absent_for: int32 [] frames since the target was last seen.
    age: int32 [] frames since the first.
    motion: of the target's centre.
    presence: [] of the last frame, 0..1.
    level: [] running mean of the log odds of presence while the target is followed.
    candidate: [2] where a lost target may be,
    evidence: [] of that, log odds, at least 0.
    appearance: what proposals look for; None without tiles.
    thumbnail: of the last frame, see `egomotion.thumbnail`; None without camera compensation.
  """

  center_wh: jax.Array
  template: Any
  recent_template: Any
  size: sizes.SizeState
  absent_for: jax.Array
  age: jax.Array
  motion: motion.MotionState
  presence: jax.Array
  level: jax.Array
  candidate: jax.Array
  evidence: jax.Array
  appearance: proposals.Appearance | None
  thumbnail: jax.Array | None


class Output(NamedTuple):
  """Attributes:

    box: [4] xywh in frame pixels; the last known box while absent.
    score: [] presence probability times the best cell's score, 0..1.
    present: bool [].
  """

  box: jax.Array
  score: jax.Array
  present: jax.Array


class Jump(NamedTuple):
  """Of the camera from the last frame to this one. Attributes:

    moved: [2] by how much the background has moved, frame pixels; zeros where it has not jumped.
    sure: bool [] whether that is hardly ever wrong.
  """

  moved: jax.Array
  sure: jax.Array

  @property
  def happened(self) -> jax.Array:
    """bool []."""
    return (self.moved != 0).any()


class Look(NamedTuple):
  """What the network sees in K windows, per cell [K, n, n]; see `Tracker.look`.

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


_LEVEL_RATE = 0.1  # How fast `TrackerState.level` follows, per frame (our choice).
_FAR = 0.25  # From the expected place, as `motion.nearness` has it: 1.7 deviations.


class Tracker:
  """Binds a network and post-processing options; holds no state of a track. All methods are jittable, and trackers with
  the same network and options are equal: programs that take one as a static argument serve all of them.

  A frame is uint8 [H, W], grey levels. Where it is the top left part of a larger canvas [H, W], `size` (int32 [2], its
  rows and columns) says so; the answers are those for the frame alone.
  """

  def __init__(self, model: SiamDFF, config: ml_collections.ConfigDict | None = None):
    """`config`: values that differ from `default_config()`.

    Raises:
      UserError: a privileged network, which needs the answer as an input; settings that are unknown or make no sense; a
        `search_side` that the network cannot see.
    """
    if model.prior_channel:
      raise UserError("a network with prior_channel sees the target's box as an input and cannot track")
    check_tracker(config or {}, model.search_side)
    options = default_config()
    options.update(config or {})
    self.model, self.config = model, ml_collections.FrozenConfigDict(options)
    self.search_side = self.config.search_side or model.search_side

  def __eq__(self, other) -> bool:
    return isinstance(other, Tracker) and (self.model, self.config) == (other.model, other.config)

  def __hash__(self) -> int:
    return hash((self.model, self.config))

  def init(self, variables, frame: jax.Array, box: jax.Array, size: jax.Array | None = None) -> TrackerState:
    """Starts on a frame [H, W]; box [4] xywh in pixels."""
    config, size = self.config, jnp.asarray(frame.shape if size is None else size, jnp.int32)
    center_wh = geometry.xywh_to_center_wh(jnp.asarray(box, jnp.float32))
    image, wh, encoded = self._encoded(variables, frame, center_wh, size)
    appearance = None
    if config.tiles:
      first = proposals.pattern(image, jnp.concatenate([jnp.full(2, image.shape[0] / 2), wh]))
      appearance = proposals.Appearance(first, first)
    zero, none = jnp.zeros((), jnp.int32), jnp.zeros(())
    return TrackerState(
        center_wh, encoded, encoded if config.template_update else None, sizes.init(center_wh[2:]),
        absent_for=zero, age=zero, motion=motion.init(), presence=jnp.ones(()), level=none, candidate=center_wh[:2],
        evidence=none, appearance=appearance,
        thumbnail=egomotion.thumbnail(frame, size) if config.camera_compensation else None)

  def _encoded(self, variables, frame, center_wh, size) -> tuple[jax.Array, jax.Array, dict]:
    """The template crop [S, S] about a box, the box's size in it [2], and what the network makes of both."""
    side = self.model.template_side
    window = jnp.concatenate([center_wh[:2], geometry.template_side(center_wh[2:])[None]])
    image = crop(frame, window, side, size)
    wh = center_wh[2:] * side / window[2]
    encoded = self.model.apply(variables, image[None, :, :, None] / 255, wh[None], method="encode_template")
    return image, wh, encoded | {"backbone": {}}  # Only distillers look at the backbone's levels.

  def step(self, variables, state: TrackerState, frame: jax.Array,
           size: jax.Array | None = None) -> tuple[TrackerState, Output]:
    """One frame [H, W] further: `search` where the target may be elsewhere and there are tiles, else `follow`."""
    size = jnp.asarray(frame.shape if size is None else size, jnp.int32)
    state, jump = self.moved_with_camera(state, frame, size)
    if not self.config.tiles:
      return self.follow(variables, state, frame, size)
    return jax.lax.cond(self.is_elsewhere(state, jump), lambda: self.search(variables, state, frame, size, jump),
                        lambda: self.follow(variables, state, frame, size))

  def is_lost(self, state: TrackerState) -> jax.Array:
    """bool []: whether the target has been absent for so long that it may be anywhere."""
    return state.absent_for > self.config.lost_after

  def is_elsewhere(self, state: TrackerState, jump: Jump) -> jax.Array:
    """bool []: whether the target may be outside of the search window: it is lost, or the camera has jumped."""
    return self.is_lost(state) | jump.happened

  def follow(self, variables, state: TrackerState, frame: jax.Array,
             size: jax.Array) -> tuple[TrackerState, Output]:
    """One frame further after `moved_with_camera`, looking at the search window."""
    window = self.search_window(state, size)
    state, output, sure = self._taken(state, self.look(variables, state, frame, size, window[None]), size)
    return self._with_recent_look(variables, state, frame, size, sure), output

  def search(self, variables, state: TrackerState, frame: jax.Array, size: jax.Array,
             jump: Jump) -> tuple[TrackerState, Output]:
    """One frame further after `moved_with_camera`, looking at the search window, at the place it had before a jump that
    is not sure, and at all tiles, as one batch. Of a target that is not lost the tiles tell nothing; if it is in
    neither place after a jump, it is lost and may be anywhere.
    """
    window, lost_for = self.search_window(state, size), self._lost_for(state)
    reach = window[2] / 2 * self.config.growth ** lost_for.astype(jnp.float32)
    places = proposals.propose(frame, size, state.appearance, state.center_wh, reach, window[2] / 4, lost_for,
                               self.config.tiles)
    tiles = jnp.concatenate([places, jnp.full((len(places), 1), window[2])], 1)
    unmoved = window.at[:2].add(jnp.where(jump.sure, 0.0, -jump.moved))
    look = self.look(variables, state, frame, size, jnp.concatenate([window[None], unmoved[None], tiles]))
    state, output, _ = self._taken(state, look, size)
    anywhere = self.config.lost_after + self._frames_to_cover(window[2], size)
    least = jnp.where(jump.happened & ~output.present, anywhere, 0)
    return state.replace(absent_for=jnp.maximum(state.absent_for, least)), output

  def chunk(self, variables, state: TrackerState, frames: jax.Array) -> tuple[TrackerState, Output]:
    """`step` over frames [T, H, W] as one program (`lax.scan`); outputs have a leading axis T."""
    return jax.lax.scan(lambda s, frame: self.step(variables, s, frame), state, frames)

  def look(self, variables, state: TrackerState, frame: jax.Array, size: jax.Array, windows: jax.Array) -> Look:
    """What the network sees in windows [K, 3] (centre and side, frame pixels) of a frame; `size` as everywhere."""
    side, count = self.search_side, len(windows)
    scale = (side / windows[:, 2])[:, None, None, None]  # Crop pixels per frame pixel.
    images = jax.vmap(crop, (None, 0, None, None))(jnp.asarray(frame), windows, side, size)
    template = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])), self._template(state))
    out = self.model.apply(variables, template, images[..., None] / 255, method="track")
    box = targets.boxes_from_ltrb(out["ltrb"], side)  # [K, n, n, 4] sides
    centre = (box[..., :2] + box[..., 2:]) / 2 - side / 2
    return Look(windows, images, out["presence_logit"],
                jax.nn.sigmoid(out["class_logit"]) * jax.nn.sigmoid(out["quality_logit"]),
                windows[:, None, None, :2] + centre / scale, (box[..., 2:] - box[..., :2]) / scale)

  def _lost_for(self, state) -> jax.Array:
    return jnp.maximum(state.absent_for - self.config.lost_after, 0)

  def _frames_to_cover(self, side, size) -> jax.Array:
    """int32 [] lost frames after which tiles come from the whole frame, at least 1; they never do without growth."""
    if self.config.growth <= 1:
      return jnp.ones((), jnp.int32)
    frames = jnp.log(2.0 * jnp.max(size) / side) / math.log(self.config.growth)
    return jnp.maximum(jnp.ceil(frames), 1).astype(jnp.int32)

  def moved_with_camera(self, state: TrackerState, frame: jax.Array, size: jax.Array) -> tuple[TrackerState, Jump]:
    """The state with the target's place moved as the background has, where that is far against the search window: a
    jump. Less is none: it may be the camera following the target, seen or hidden.
    """
    if not self.config.camera_compensation:
      return state, Jump(jnp.zeros(2), jnp.ones((), bool))
    thumbnail = egomotion.thumbnail(frame, size)
    cells, sure = egomotion.shift(state.thumbnail, thumbnail)
    moved = cells * size[::-1] / egomotion.SIDE
    moved = jnp.where(jnp.abs(moved).max() > self._side(state.center_wh) / 4, moved, 0.0)
    last = state.center_wh[:2]
    moved = jnp.clip(last + moved, 0, size[::-1]) - last
    return state.replace(center_wh=state.center_wh.at[:2].add(moved), candidate=state.candidate + moved,
                         thumbnail=thumbnail), Jump(moved, sure)

  def _side(self, center_wh) -> jax.Array:
    """[] of the search window about a target [4], frame pixels."""
    return geometry.template_side(center_wh[2:]) * self.search_side / self.model.template_side

  def search_window(self, state, frame_size) -> jax.Array:
    """[3]: about the last place, or about the one to be confirmed. Without tiles it grows while the target is lost,
    until it covers the frame from wherever the centre is.
    """
    side, pending = self._side(state.center_wh), state.evidence > 0
    centre = jnp.where(pending, state.candidate, state.center_wh[:2])
    if not self.config.tiles:
      grown = side * self.config.growth ** self._lost_for(state).astype(jnp.float32)
      side = jnp.where(pending, side, jnp.minimum(grown, jnp.maximum(side, 2.0 * jnp.max(frame_size))))
    return jnp.concatenate([centre, side[None]])

  def _taken(self, state: TrackerState, look: Look,
             frame_size: jax.Array) -> tuple[TrackerState, Output, jax.Array]:
    """The state after the best cell of all windows is taken for the target, or the target for absent.

    Also returns whether the target is surely seen, as it was in the frame before.
    """
    config, lost = self.config, self.is_lost(state)
    quality = look.cell_score * _change_penalty(look.wh, state.center_wh[2:], config.scale_penalty)
    # A target that is not lost is in the search window or, if the camera did not jump after all, in the second one.
    # Relative to the best there: in images unlike those of the training all scores are lower, which must not lend the
    # expected place more weight.
    near = quality / jnp.maximum(quality[:2].max(), peaks.LEAST_SCORE) * (1 - config.window)
    expected = self._expected(state, look)
    near += expected * config.window
    score = jnp.where(lost, quality, near)
    flat = lambda x: x.reshape(len(look.windows), -1, *x.shape[3:])
    cells = flat(score).argmax(1)  # One in every window.
    of_cells = lambda x: flat(x)[jnp.arange(len(cells)), cells]
    ratios = jax.vmap(peaks.ratio, (0, 0, 0, None))(flat(quality), flat(look.centre), cells,
                                                    _size(state.center_wh))
    log_odds = peaks.log_odds(look.presence_logit, ratios, config)
    sums = self._evidence(state, of_cells(look.centre), log_odds)
    doubtful = ~lost & (of_cells(expected) < _FAR) & (ratios < config.jump_ratio)
    window = jnp.where(lost, sums.argmax(), jnp.where(doubtful, -jnp.inf, log_odds)[:2].argmax())
    pick = lambda x: flat(x)[window, cells[window]]
    presence = jnp.where(doubtful[window], 0.0, jax.nn.sigmoid(log_odds[window]))

    limit = frame_size[::-1].astype(jnp.float32)
    scale = look.windows[window, 2] / self._side(state.center_wh)
    next_size = sizes.update(state.size, pick(look.wh), pick(quality), scale, config.size)
    proposal = jnp.concatenate([jnp.clip(pick(look.centre), 0, limit), jnp.minimum(next_size.wh, limit)])
    found = sums[window] >= config.found_above
    present = jnp.where(lost, found, presence >= config.absent_below)

    sure = (state.absent_for == 0) & present & (presence >= config.sure_above)
    center_wh = jnp.where(present, proposal, state.center_wh)
    output = Output(geometry.center_wh_to_xywh(center_wh), presence * pick(look.cell_score), present)
    state = state.replace(
        center_wh=center_wh, size=jax.tree.map(lambda new, old: jnp.where(present, new, old), next_size, state.size),
        absent_for=jnp.where(present, 0, state.absent_for + 1), age=state.age + 1,
        motion=self._next_motion(state, proposal[:2] - look.windows[window, :2], present & ~lost), presence=presence,
        level=state.level + jnp.where(present & ~lost, _LEVEL_RATE * (log_odds[window] - state.level), 0.0),
        candidate=proposal[:2], evidence=jnp.where(lost & ~found, sums[window], 0.0),
        appearance=self._next_appearance(state, look, window, proposal, sure))
    return state, output, sure

  def _evidence(self, state, places, log_odds) -> jax.Array:
    """[K] that a lost target is at places [K, 2], from log odds of its presence in this frame [K]: Page's cumulative
    sum ("Continuous Inspection Schemes", Biometrika 1954). Near the place of the frame before it counts on.

    A look-alike is there as long as one likes, but less like the target than the target was: what is asked of every
    frame is a share of that.
    """
    apart = jnp.abs(places - state.candidate).max(-1)
    before = jnp.where(apart <= _size(state.center_wh), state.evidence, 0.0)
    return jnp.maximum(before + log_odds - self.config.found_share * jnp.maximum(state.level, 0.0), 0.0)

  def _expected(self, state, look) -> jax.Array:
    """How near every cell [K, n, n] is to where the target is expected, 0..1, if it was last in the window's middle."""
    if not self.config.motion.deviation:
      return jnp.broadcast_to(_hann(look.cell_score.shape[-1]), look.cell_score.shape)
    last = look.windows[:, None, None, :2]
    return motion.nearness(state.motion, look.centre, last, _size(state.center_wh), self.config.motion)

  def _next_motion(self, state, moved, seen) -> motion.MotionState:
    return motion.update(state.motion, moved, _size(state.center_wh), seen, self.config.motion)

  def _next_appearance(self, state, look, window, center_wh, sure) -> proposals.Appearance | None:
    """What is surely seen is what to look for when it is lost."""
    if not self.config.tiles:
      return None
    side, (place, length) = look.images.shape[1], jnp.split(look.windows[window], [2])
    scale = side / length
    centre = (center_wh[:2] - place) * scale + side / 2
    seen = proposals.pattern(look.images[window], jnp.concatenate([centre, center_wh[2:] * scale]))
    return state.appearance._replace(last=jnp.where(sure, seen, state.appearance.last))

  def _template(self, state) -> dict:
    """What the search windows are compared with. A recent look helps a doubtful target, the first one measures the size
    of a clear one: boxes are as the template's box, and a recent one's is only a prediction.
    """
    share, first = self.config.template_update, state.template
    if not share:
      return first
    share = jnp.where(state.presence < self.config.template_below, share, 0.0)
    mixed = lambda first, recent: ((1 - share) * first + share * recent).astype(first.dtype)
    return jax.tree.map(mixed, first, state.recent_template) | {"mask": first["mask"]}

  def _with_recent_look(self, variables, state, frame, size, sure) -> TrackerState:
    """Now and then a surely seen target gives a recent look. A mistake lasts until the next one at most."""
    if not self.config.template_update:
      return state
    # Laid out for the network's own size of it: the box that is reported may differ from what is seen.
    seen = jnp.concatenate([state.center_wh[:2], state.size.predicted_wh])
    due = sure & (state.age % self.config.template_every == 0)
    recent = jax.lax.cond(due, lambda: self._encoded(variables, frame, seen, size)[2], lambda: state.recent_template)
    return state.replace(recent_template=recent)


def _hann(side: int) -> np.ndarray:
  """The cosine window over a response map, float32 [side, side], without its zero rim."""
  axis = np.hanning(side + 2)[1:-1]
  return np.outer(axis, axis).astype(np.float32)


def _change_penalty(size: jax.Array, last: jax.Array, k: float) -> jax.Array:
  """exp(-(r s - 1) k) of SiamRPN: r the change of aspect, s of the padded size, both >= 1. size [..., 2], last [2]."""
  aspect = (last[0] / last[1]) / (size[..., 0] / size[..., 1])
  return jnp.exp(-(_change(aspect) * _change(geometry.template_side(size) / geometry.template_side(last)) - 1) * k)


def _change(ratio: jax.Array) -> jax.Array:
  """A ratio or its inverse, whichever is larger."""
  return jnp.maximum(ratio, 1 / ratio)


def _size(center_wh: jax.Array) -> jax.Array:
  """[4] -> []: the side of a square target, for others half of the template window's."""
  return geometry.template_side(center_wh[2:]) / 2
