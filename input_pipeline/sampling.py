"""Which pair example i of a run is: a pure function of (seed, i).

Nothing is shuffled or remembered, so a run resumes at any step in O(1), hosts share the stream by taking their own
indices of every batch, and the stream is the same for any number of hosts (our design). `draw` is written over an array
module: the same function plans a batch in numpy on the host and, compiled, on an accelerator.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from types import ModuleType

import ml_collections
import numpy as np
from numpy.typing import ArrayLike

from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource
from input_pipeline.geometry import Array, template_window
from input_pipeline.random_bits import uniforms
from input_pipeline.sequences import Sequence

MAX_EXAMPLES = 2**32  # Of one stream: an index is 32 bits wide.

# One random number for each, always drawn, so that no choice shifts another.
_DRAWS = ("source", "sequence", "template", "search", "template_scale", "negative", "scale", "x", "y", "absent",
          "absent_frame", "elsewhere", "other_sequence", "other_frame", "angle", "distance", "style", "style_aspect",
          "jitter_x", "jitter_y", "jitter_w", "jitter_h", "impostor", "lookalike", "which_lookalike")
# An off-target window lies this far beyond touching the target, as a factor of the touching distance.
_NEAREST, _FARTHEST = 1.05, 1.25
_OFF = 0.5  # Of a look-alike from the middle of its window at most, in its sizes.


@dataclasses.dataclass(frozen=True)
class Tables:
  """What the draws look up; all sequences' frames in one row. Arrays, so that they can lie on a device.

  Attributes:
    start: int32 [S + 1], the first frame of every sequence.
    boxes: float32 [N, 4] xywh, zero where the target is absent.
    anchors: float32 [N, 4] xywh, the frame's own box or, where absent, the one last seen (or first seen).
    visible: int32 [V], the frames that show the target, ascending.
    visible_start: int32 [S + 1], where each sequence's part of `visible` begins.
    absent, absent_start: the same for the other frames; `absent` has at least one (unused) entry.
    lookalike_frame: int32 [L], the frames of look-alikes that can be shown without the target, see `_shown_alone`.
    lookalike_box: float32 [L, 4] xywh. Both have one (unused) entry more than there are.
    lookalike_start: int32 [S + 1], where each sequence's part of them begins.
    source_start: int32 [D + 1], the first sequence of every source.
    cumulative: float32 [D], the running sum of the sources' weights, ending at 1.
  """

  start: np.ndarray
  boxes: np.ndarray
  anchors: np.ndarray
  visible: np.ndarray
  visible_start: np.ndarray
  absent: np.ndarray
  absent_start: np.ndarray
  lookalike_frame: np.ndarray
  lookalike_box: np.ndarray
  lookalike_start: np.ndarray
  source_start: np.ndarray
  cumulative: np.ndarray


class _Draws:
  """The random numbers of some examples, by the names in `_DRAWS`: float32 [n], uniform in [0, 1).

  Attributes:
    xp: their array module.
  """

  def __init__(self, seed: int, index: Array, xp: ModuleType):
    numbers = uniforms(seed, index, len(_DRAWS), xp)
    self._numbers = {name: numbers[:, i] for i, name in enumerate(_DRAWS)}
    self.xp = xp

  def __getitem__(self, name: str) -> Array:
    return self._numbers[name]

  def signed(self, name: str) -> Array:
    """The numbers of this name, in [-1, 1)."""
    return 2 * self[name] - 1

  def pick(self, name: str, start: Array, end: Array) -> Array:
    """Integers, int32 [n], in [start, end), the same on every backend; `start` where there is none."""
    xp, count = self.xp, end - start
    return start + xp.clip((self[name] * count.astype(xp.float32)).astype(xp.int32), 0, xp.maximum(count - 1, 0))


def draw(tables: Tables, seed: int, index: Array, config: ml_collections.ConfigDict, ratio: float,
         xp: ModuleType = np) -> dict[str, Array]:
  """The pairs of some indices.

  Args:
    tables: of arrays of `xp`.
    seed: of the stream.
    index: uint32 [n], examples of the stream.
    config: `config.data.pairs`, see configs/base.py.
    ratio: search side / template side.
    xp: numpy or jax.numpy.

  Returns:
    "template_frame", "search_frame" int32 [n] rows of `tables.boxes`; "template_window", "search_window" float32
    [n, 3] (centre x, centre y, side in frame pixels); "template_box", "search_box" float32 [n, 4] xywh (the latter
    zero in a negative pair); "present" bool [n].
  """
  u = _Draws(seed, index, xp)
  source = xp.minimum(xp.searchsorted(tables.cumulative, u["source"], side="right"), len(tables.cumulative) - 1)
  sequence = u.pick("sequence", tables.source_start[source], tables.source_start[source + 1])
  template = tables.visible[u.pick("template", tables.visible_start[sequence], tables.visible_start[sequence + 1])]
  earliest = xp.maximum(template - config.max_gap, tables.start[sequence])
  latest = xp.minimum(template + config.max_gap, tables.start[sequence + 1] - 1)
  near = xp.searchsorted(tables.visible, earliest, side="left"), xp.searchsorted(tables.visible, latest, side="right")
  search = tables.visible[u.pick("search", *(n.astype(xp.int32) for n in near))]
  template_box = _jittered(_styled(tables.boxes[template], u, config), u, config)
  search_box = _styled(tables.boxes[search], u, config)
  own_window = template_window(template_box)
  template_factor = xp.exp(u.signed("template_scale") * np.float32(np.log1p(config.template_scale)))
  present = u["negative"] >= np.float32(config.negative)
  search_window = _around(search_box, u, config, ratio)
  negative_frame, negative_window = _negative(tables, u, sequence, search, config, ratio)
  return {
      "template_frame": template,
      "search_frame": xp.where(present, search, negative_frame),
      "template_window": xp.concatenate([own_window[:, :2], own_window[:, 2:] * template_factor[:, None]], -1),
      "search_window": xp.where(present[:, None], search_window, negative_window),
      "template_box": template_box,
      "search_box": search_box * present[:, None],
      "present": present,
  }


def _negative(tables: Tables, u: _Draws, sequence: Array, search: Array, config: ml_collections.ConfigDict,
              ratio: float) -> tuple[Array, Array]:
  """Frames and windows in them without the target, for pairs whose template and search frame are given.

  A look-alike of the same sequence; or another sequence's target; or a frame without the target, where it was last
  seen; or a window beside a target.

  Args:
    tables: see `draw`.
    u: the random numbers.
    sequence: int32 [n], the templates' sequences.
    search: int32 [n], the frames that a positive pair would search.
    config: `config.data.pairs`.
    ratio: search side / template side.

  Returns:
    int32 [n] rows of `tables.boxes`, float32 [n, 3] windows.
  """
  xp = u.xp
  first_absent, end_absent = tables.absent_start[sequence], tables.absent_start[sequence + 1]
  absent_chosen = (end_absent > first_absent) & (u["absent"] < 0.5)
  absent = tables.absent[xp.minimum(u.pick("absent_frame", first_absent, end_absent), len(tables.absent) - 1)]
  own = template_window(tables.anchors[absent])
  last_seen = xp.concatenate([own[:, :2], own[:, 2:] * np.float32(ratio)], -1)
  everywhere = xp.zeros_like(sequence)
  other_sequence = u.pick("other_sequence", everywhere, everywhere + (len(tables.start) - 1))
  other = tables.visible[
      u.pick("other_frame", tables.visible_start[other_sequence], tables.visible_start[other_sequence + 1])]
  beside = xp.where(u["elsewhere"] < 0.5, other, search)
  impostor = (u["impostor"] < np.float32(config.impostor)) & (other_sequence != sequence)
  first, end = tables.lookalike_start[sequence], tables.lookalike_start[sequence + 1]
  lookalike = (end > first) & (u["lookalike"] < np.float32(config.lookalike))
  row = xp.minimum(u.pick("which_lookalike", first, end), len(tables.lookalike_frame) - 1)

  def choose(last_seen: Array, beside: Array, other: Array, alike: Array) -> Array:
    chosen = xp.where(_like(absent_chosen, last_seen), last_seen, beside)
    chosen = xp.where(_like(impostor, other), other, chosen)
    return xp.where(_like(lookalike, alike), alike, chosen)

  frame = choose(absent, beside, other, tables.lookalike_frame[row])
  window = choose(last_seen, _beside(tables.boxes[beside], u, config, ratio),
                  _around(tables.boxes[other], u, config, ratio),
                  _on_lookalike(tables.lookalike_box[row], u, config, ratio))
  return frame, window


def _like(mask: Array, array: Array) -> Array:
  """The mask [n] with as many axes as the array [n, ...]."""
  return mask.reshape(mask.shape + (1,) * (array.ndim - 1))


def _styled(boxes: Array, u: _Draws, config: ml_collections.ConfigDict) -> Array:
  """Boxes about the same centres, looser or tighter: both of a pair alike, and a third as much in aspect (our choice).

  What an annotator includes in a box differs between data sets; the box of the first frame shows it.
  """
  xp, reach = u.xp, np.float32(np.log1p(config.style))
  size, aspect = u.signed("style") * reach, u.signed("style_aspect") * reach / 3
  wh = boxes[:, 2:] * xp.exp(xp.stack([size + aspect, size - aspect], -1))
  return xp.concatenate([boxes[:, :2] + (boxes[:, 2:] - wh) / 2, wh], -1)


def _jittered(boxes: Array, u: _Draws, config: ml_collections.ConfigDict) -> Array:
  """Boxes as a hasty hand draws them: off by up to `jitter` of their sides, each side as much longer or shorter.

  Only the template's: what it is off by must not be learned as what the box of this target is like (our choice).
  """
  xp, reach = u.xp, np.float32(config.jitter)

  def pair(a: str, b: str) -> Array:
    return xp.stack([u.signed(a), u.signed(b)], -1)

  wh = boxes[:, 2:] * xp.exp(pair("jitter_w", "jitter_h") * np.float32(np.log1p(config.jitter)))
  moved = pair("jitter_x", "jitter_y") * reach * boxes[:, 2:]
  return xp.concatenate([boxes[:, :2] + moved + (boxes[:, 2:] - wh) / 2, wh], -1)


def _around(boxes: Array, u: _Draws, config: ml_collections.ConfigDict, ratio: float) -> Array:
  """The search window of a positive pair, a little off as a tracker's is. The target's centre stays inside it."""
  xp, window = u.xp, template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(u.signed("scale") * np.float32(np.log1p(config.scale)))
  # `shift` is in target sizes, so that it means the same motion for every search factor.
  reach = xp.minimum(np.float32(config.shift) * xp.sqrt(boxes[:, 2] * boxes[:, 3]), np.float32(0.45) * side)
  return xp.stack([window[:, 0] + u.signed("x") * reach, window[:, 1] + u.signed("y") * reach, side], -1)


def _beside(boxes: Array, u: _Draws, config: ml_collections.ConfigDict, ratio: float) -> Array:
  """A window of at most the nominal size just beside the target: near it, but without any of it."""
  xp, window = u.xp, template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(-u["scale"] * np.float32(np.log1p(config.scale)))
  factor = np.float32(_NEAREST) + np.float32(_FARTHEST - _NEAREST) * u["distance"]
  reach = (side + xp.maximum(boxes[:, 2], boxes[:, 3])) / 2 * factor
  angle = u["angle"] * np.float32(2 * np.pi)
  x, y = xp.cos(angle), xp.sin(angle)
  longest = xp.maximum(xp.abs(x), xp.abs(y))  # On the square around the target, not the circle: never overlapping it.
  return xp.stack([window[:, 0] + reach * x / longest, window[:, 1] + reach * y / longest, side], -1)


def _on_lookalike(boxes: Array, u: _Draws, config: ml_collections.ConfigDict, ratio: float) -> Array:
  """A window of at most the nominal size with a look-alike up to `_OFF` of its sizes beside the middle."""
  xp, window = u.xp, template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(-u["scale"] * np.float32(np.log1p(config.scale)))
  reach = np.float32(_OFF) * xp.sqrt(boxes[:, 2] * boxes[:, 3])
  return xp.stack([window[:, 0] + u.signed("x") * reach, window[:, 1] + u.signed("y") * reach, side], -1)


def _shown_alone(sequence: Sequence, context: float, ratio: float) -> np.ndarray:
  """Rows of `sequence.lookalikes` whose windows hold nothing of the target and lie within `context` of its anchor."""
  frames, boxes = sequence.lookalikes[:, 0].astype(int), sequence.lookalikes[:, 1:]
  around, window = anchors(sequence)[frames], template_window(boxes)
  half = window[:, 2] * ratio / 2 + _OFF * np.sqrt(boxes[:, 2] * boxes[:, 3])
  off = np.abs(window[:, :2] - (around[:, :2] + around[:, 2:] / 2))
  clear = ~sequence.visible[frames] | (off > half[:, None] + around[:, 2:] / 2).any(-1)
  return np.flatnonzero(clear & (off.max(-1) + half <= context * template_window(around)[:, 2]))


def needed_context(config: ml_collections.ConfigDict, ratio: float) -> float:
  """How far any window may reach from its frame's anchor, in sides of that anchor's template window.

  Args:
    config: `config.data.pairs`.
    ratio: search side / template side.
  """
  # sqrt(wh) is at most 1/2 of the template window's side (square boxes), max(w, h) at most 1 / sqrt(3/4) (thin ones).
  around = ratio * (1 + config.scale) / 2 + min(0.5 * config.shift, 0.45 * ratio * (1 + config.scale))
  beside = ratio / 2 + _FARTHEST * (ratio + np.sqrt(4 / 3)) / 2
  template = (1 + config.template_scale) * (1 + config.jitter) / 2 + np.sqrt(4 / 3) * config.jitter
  looser = (1 + config.style) ** (4 / 3)  # At most, along one axis; windows beside a target have no style.
  return float(max(looser * around, beside if config.negative else 0.0, looser * template))


class PairSampler:
  """Draws pairs from weighted sources.

  A source is a list of sequences; a sequence is drawn uniformly within its source. The search frame lies within
  `max_gap` frames of the template's. Both boxes may be drawn looser or tighter, alike (`style`). The search window is
  the search frame's own (its box, so scale 1) moved by up to `shift` and scaled by up to `scale`, as a tracker that is
  a little off would place it.

  Attributes:
    sequences: those that show their target at all.
    tables: see `Tables`.
    ratio: search side / template side.
  """

  def __init__(self, sources: Seq[Seq[Sequence]], weights: Seq[float], config: ml_collections.ConfigDict, *,
               template_side: int, search_side: int, names: Seq[str] | None = None):
    """`config`: `config.data.pairs`, see configs/base.py. `names`: what to call the sources in errors.

    Raises:
      UserError: no sources, weights that do not fit, or a source without a visible target.
    """
    if not sources or len(weights) != len(sources) or min(weights) < 0 or sum(weights) <= 0:
      raise UserError(f"{len(sources)} data sources with the weights {list(weights)}: expected one weight >= 0 each")
    names = names or [f"data source {i}" for i in range(len(sources))]
    kept = [[sequence for sequence in source if sequence.visible.any()] for source in sources]
    for name, source in zip(names, kept, strict=True):
      if not source:
        raise UserError(f"{name} has no sequence with a visible target")
    self.sequences = [sequence for source in kept for sequence in source]
    self.ratio = search_side / template_side
    self._config = config
    self.tables = _tables(kept, weights, needed_context(config, self.ratio), self.ratio)

  def plan(self, seed: int, index: ArrayLike) -> dict[str, np.ndarray]:
    """`draw` for the examples `index` (integers in [0, 2**32), [n]) of the stream `seed`."""
    index = np.asarray(index)
    if index.min() < 0 or index.max() >= MAX_EXAMPLES:
      raise ValueError(f"examples {index.min()}..{index.max()}: expected numbers in [0, 2**32)")
    return draw(self.tables, seed, index.astype(np.uint32), self._config, self.ratio)

  def locate(self, row: int) -> tuple[int, int]:
    """A row of the tables as (sequence index, frame index)."""
    sequence = int(np.searchsorted(self.tables.start, row, side="right")) - 1
    return sequence, int(row - self.tables.start[sequence])

  def frame(self, row: int) -> tuple[FrameSource, int]:
    """The frames that a row of the tables is one of, which its sequence must have, and its number there."""
    sequence, t = self.locate(row)
    frames = self.sequences[sequence].frames
    assert frames is not None
    return frames, t


def anchors(sequence: Sequence) -> np.ndarray:
  """float32 [T, 4] xywh: every frame's own box or, where the target is absent, the one last (or else first) seen."""
  seen = np.flatnonzero(sequence.visible)
  last = np.searchsorted(seen, np.arange(len(sequence)), side="right") - 1
  return sequence.boxes[seen[np.maximum(last, 0)]]


def _tables(sources: list[list[Sequence]], weights: Seq[float], context: float, ratio: float) -> Tables:
  sequences = [sequence for source in sources for sequence in source]

  def running(counts: Iterable[int]) -> np.ndarray:
    return np.cumsum([0, *counts]).astype(np.int32)

  visible = np.concatenate([s.visible for s in sequences])
  start = running(len(s) for s in sequences)
  alone = [s.lookalikes[_shown_alone(s, context, ratio)] for s in sequences]
  lookalikes = np.concatenate([*alone, np.zeros((1, 5), np.float32)])
  first = np.append(np.repeat(start[:-1], [len(a) for a in alone]), 0)
  return Tables(
      start=start,
      boxes=np.concatenate([s.boxes for s in sequences]),
      anchors=np.concatenate([anchors(s) for s in sequences]),
      visible=np.flatnonzero(visible).astype(np.int32),
      visible_start=running(s.visible.sum() for s in sequences),
      absent=np.append(np.flatnonzero(~visible), 0).astype(np.int32),
      absent_start=running((~s.visible).sum() for s in sequences),
      lookalike_frame=first.astype(np.int32) + lookalikes[:, 0].astype(np.int32),
      lookalike_box=np.ascontiguousarray(lookalikes[:, 1:]),
      lookalike_start=running(len(a) for a in alone),
      source_start=running(len(source) for source in sources),
      cumulative=(np.cumsum(np.asarray(weights, np.float64)) / sum(weights)).astype(np.float32))
