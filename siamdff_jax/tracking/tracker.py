"""The tracker as pure functions over an explicit state.

`init(variables, frame, box) -> state` and `step(variables, state, frame) -> (state, Output)`. Post-processing is the
Siamese family's: a penalty on sudden changes of scale and aspect, a cosine window about the last position, a
smoothed size. There is no minimum size. When presence is low for some frames the target counts as lost: the search
window grows from frame to frame until it covers the frame, the cosine window is off, and the target is taken up again
only on a confident match of about its last size. Absent is reported as absent.
"""

from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from siamdff_jax import boxes, targets
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.tracking.crops import crop, template_window


def default_config() -> ml_collections.ConfigDict:
  """What `config.tracker` may set; the defaults are our choice (docs/decisions.md)."""
  return ml_collections.ConfigDict(dict(
      scale_penalty=0.04,  # k in exp(-(r s - 1) k), r and s the changes of aspect and of size (SiamRPN).
      window=0.3,  # Weight of the cosine window while tracking.
      size_rate=0.4,  # How fast the size follows the prediction, times the penalised score.
      size_anchor=0.15,  # How fast it falls back to the first box's size.
      absent_below=0.35,  # Presence below this: the frame is reported as absent.
      found_above=0.6,  # A lost target is taken up again at this presence,
      found_size_change=2.0,  # and when it is at most this many times larger or smaller than it was.
      lost_after=5,  # Absent frames in a row after which the search window starts to grow.
      growth=1.15,  # Of the search window, per lost frame.
  ))


@flax.struct.dataclass
class TrackerState:
  """Attributes:

    center_wh: [4] last known centre and size, frame pixels.
    template: what `SiamDFF.encode_template` returned, of the first frame, leading axis 1, without "backbone".
    first_wh: [2] the size of the first box.
    absent_for: int32 [] frames since the target was last seen.
  """

  center_wh: jax.Array
  template: Any
  first_wh: jax.Array
  absent_for: jax.Array


class Output(NamedTuple):
  """Attributes:

    box: [4] xywh in frame pixels; the last known box while absent.
    score: [] presence probability times the best cell's score, 0..1.
    present: bool [].
  """

  box: jax.Array
  score: jax.Array
  present: jax.Array


class Tracker:
  """Binds a network and post-processing options; holds no state of a track. All methods are jittable.

  A frame is uint8 [H, W], grey levels. Where it is the top left part of a larger canvas [H, W], `size` (int32 [2], its
  rows and columns) says so; the answers are those for the frame alone.
  """

  def __init__(self, model: SiamDFF, config: ml_collections.ConfigDict | None = None):
    """`config`: values that differ from `default_config()`.

    Raises:
      ValueError: a privileged network, which needs the answer as an input.
    """
    if model.prior_channel:
      raise ValueError("a network with prior_channel sees the target's box as an input and cannot track")
    self.model, self.config = model, default_config()
    self.config.update(config or {})

  def init(self, variables, frame: jax.Array, box: jax.Array, size: jax.Array | None = None) -> TrackerState:
    """Starts on a frame [H, W]; box [4] xywh in pixels."""
    center_wh = boxes.xywh_to_center_wh(jnp.asarray(box, jnp.float32))
    window = template_window(center_wh)
    image = crop(frame, window, self.model.template_side, size)
    wh = center_wh[2:] * self.model.template_side / window[2]
    encoded = self.model.apply(variables, image[None, :, :, None] / 255, wh[None], method="encode_template")
    encoded = encoded | {"backbone": {}}  # Only distillers look at the backbone's levels.
    return TrackerState(center_wh, encoded, center_wh[2:], jnp.zeros((), jnp.int32))

  def _look(self, variables, state: TrackerState, frame: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
    """The network on the search window: per cell "cell_score", "penalty" [n, n], "centre" (from the window's), "size",
    "last_size" in crop pixels [n, n, 2]; "presence", "scale" (crop pixels per frame pixel), "window" [3].
    """
    side = self.model.search_side
    window = self._search_window(state, size)
    scale = side / window[2]
    image = crop(frame, window, side, size)[None, :, :, None] / 255
    out = self.model.apply(variables, state.template, image, method="track")
    box = targets.boxes_from_ltrb(out["ltrb"], side)[0]  # [n, n, 4] sides
    box_size = box[..., 2:] - box[..., :2]
    last_size = state.center_wh[2:] * scale
    return {
        "cell_score": (jax.nn.sigmoid(out["class_logit"]) * jax.nn.sigmoid(out["quality_logit"]))[0],
        "penalty": _change_penalty(box_size, last_size, self.config.scale_penalty),
        "centre": (box[..., :2] + box[..., 2:]) / 2 - side / 2,
        "size": box_size, "last_size": last_size, "presence": jax.nn.sigmoid(out["presence_logit"][0]),
        "scale": scale, "window": window,
    }

  def step(self, variables, state: TrackerState, frame: jax.Array,
           size: jax.Array | None = None) -> tuple[TrackerState, Output]:
    """One frame [H, W] further."""
    frame_size = jnp.asarray(frame.shape if size is None else size, jnp.int32)
    config, look = self.config, self._look(variables, state, frame, frame_size)
    cell_score, penalty, window, scale = look["cell_score"], look["penalty"], look["window"], look["scale"]
    lost = state.absent_for > config.lost_after
    influence = jnp.where(lost, 0.0, config.window)
    ranking = cell_score * penalty * (1 - influence) + _hann(cell_score.shape[0]) * influence
    # In a grown window background of any size can look like the target; only what has its size may bring it back.
    consistent = _change(_padded_size(look["size"]) / _padded_size(look["last_size"])) <= config.found_size_change
    best = jnp.where(lost & ~consistent, -1.0, ranking).reshape(-1).argmax()
    pick = lambda x: x.reshape(-1, *x.shape[2:])[best]

    rate = pick(penalty) * pick(cell_score) * config.size_rate
    size = state.center_wh[2:] * (1 - rate) + pick(look["size"]) / scale * rate
    # The window has the size found last, so a bias in size feeds itself: without an anchor boxes drift away.
    size = size + config.size_anchor * (state.first_wh - size)
    limit = frame_size[::-1].astype(jnp.float32)
    centre = jnp.clip(window[:2] + pick(look["centre"]) / scale, 0, limit)
    proposal = jnp.concatenate([centre, jnp.minimum(size, limit)])

    presence = look["presence"]
    present = jnp.where(lost, (presence >= config.found_above) & pick(consistent), presence >= config.absent_below)
    center_wh = jnp.where(present, proposal, state.center_wh)
    absent_for = jnp.where(present, 0, state.absent_for + 1)
    output = Output(boxes.center_wh_to_xywh(center_wh), presence * pick(cell_score), present)
    return state.replace(center_wh=center_wh, absent_for=absent_for), output

  def chunk(self, variables, state: TrackerState, frames: jax.Array) -> tuple[TrackerState, Output]:
    """`step` over frames [T, H, W] as one program (`lax.scan`); outputs have a leading axis T."""
    return jax.lax.scan(lambda s, frame: self.step(variables, s, frame), state, frames)

  def _search_window(self, state, frame_size) -> jax.Array:
    """Grows while the target is lost, until it covers the frame from wherever the centre is."""
    window = template_window(state.center_wh)
    side = window[2] * self.model.search_side / self.model.template_side
    lost_for = jnp.maximum(state.absent_for - self.config.lost_after, 0).astype(jnp.float32)
    grown = jnp.minimum(side * self.config.growth**lost_for, jnp.maximum(side, 2.0 * jnp.max(frame_size)))
    return jnp.concatenate([window[:2], grown[None]])


def _hann(side: int) -> np.ndarray:
  """The cosine window over a response map, float32 [side, side], without its zero rim."""
  axis = np.hanning(side + 2)[1:-1]
  return np.outer(axis, axis).astype(np.float32)


def _change_penalty(size: jax.Array, last: jax.Array, k: float) -> jax.Array:
  """exp(-(r s - 1) k) of SiamRPN: r the change of aspect, s of the padded size, both >= 1. size [..., 2], last [2]."""
  aspect = (last[0] / last[1]) / (size[..., 0] / size[..., 1])
  return jnp.exp(-(_change(aspect) * _change(_padded_size(size) / _padded_size(last)) - 1) * k)


def _change(ratio: jax.Array) -> jax.Array:
  """A ratio or its inverse, whichever is larger."""
  return jnp.maximum(ratio, 1 / ratio)


def _padded_size(wh: jax.Array) -> jax.Array:
  """[..., 2] -> [...]: the side of the template window of a box, see `crops.template_window`."""
  padding = wh.sum(-1) / 2
  return jnp.sqrt((wh[..., 0] + padding) * (wh[..., 1] + padding))
