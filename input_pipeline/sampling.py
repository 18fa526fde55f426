"""Which pair example i of a run is: a pure function of (seed, i).

Nothing is shuffled or remembered, so a run resumes at any step in O(1), hosts share the stream by taking their own
indices of every batch, and the stream is the same for any number of hosts (our design). `draw` is written over an array
module: the same function plans a batch in numpy on the host and, compiled, on an accelerator.
"""

import dataclasses
from collections.abc import Sequence as Seq

import ml_collections
import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.geometry import template_window
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


def draw(tables: Tables, seed: int, index, config: ml_collections.ConfigDict, ratio: float, xp=np) -> dict:
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
  numbers = uniforms(seed, index, len(_DRAWS), xp)
  u = {name: numbers[:, i] for i, name in enumerate(_DRAWS)}
  signed = lambda name: 2 * u[name] - 1

  def pick(name, start, end):  # An integer in [start, end), the same on every backend.
    count = end - start
    return start + xp.clip((u[name] * count.astype(xp.float32)).astype(xp.int32), 0, xp.maximum(count - 1, 0))

  source = xp.minimum(xp.searchsorted(tables.cumulative, u["source"], side="right"), len(tables.cumulative) - 1)
  sequence = pick("sequence", tables.source_start[source], tables.source_start[source + 1])
  template = tables.visible[pick("template", tables.visible_start[sequence], tables.visible_start[sequence + 1])]
  earliest = xp.maximum(template - config.max_gap, tables.start[sequence])
  latest = xp.minimum(template + config.max_gap, tables.start[sequence + 1] - 1)
  near = xp.searchsorted(tables.visible, earliest, side="left"), xp.searchsorted(tables.visible, latest, side="right")
  search = tables.visible[pick("search", *(n.astype(xp.int32) for n in near))]
  styled = lambda rows: _styled(tables.boxes[rows], signed, config, xp)
  template_box, search_box = _jittered(styled(template), signed, config, xp), styled(search)
  template_window_ = template_window(template_box)
  template_factor = xp.exp(signed("template_scale") * np.float32(np.log1p(config.template_scale)))

  present = u["negative"] >= np.float32(config.negative)
  windows = [_around(search_box, signed, config, ratio, xp)]
  # A negative pair: a look-alike of the same sequence; or another sequence's target; or a frame without the target,
  # where it was last seen; or a window beside a target.
  first_absent, end_absent = tables.absent_start[sequence], tables.absent_start[sequence + 1]
  absent_chosen = (end_absent > first_absent) & (u["absent"] < 0.5)
  absent = tables.absent[xp.minimum(pick("absent_frame", first_absent, end_absent), len(tables.absent) - 1)]
  own = template_window(tables.anchors[absent])
  windows.append(xp.concatenate([own[:, :2], own[:, 2:] * np.float32(ratio)], -1))
  everywhere = xp.zeros_like(sequence)
  other_sequence = pick("other_sequence", everywhere, everywhere + (len(tables.start) - 1))
  other = tables.visible[
      pick("other_frame", tables.visible_start[other_sequence], tables.visible_start[other_sequence + 1])]
  beside = xp.where(u["elsewhere"] < 0.5, other, search)
  windows.append(_beside(tables.boxes[beside], u, config, ratio, xp))
  impostor = (u["impostor"] < np.float32(config.impostor)) & (other_sequence != sequence)
  windows.append(_around(tables.boxes[other], signed, config, ratio, xp))
  first, end = tables.lookalike_start[sequence], tables.lookalike_start[sequence + 1]
  lookalike = (end > first) & (u["lookalike"] < np.float32(config.lookalike))
  row = xp.minimum(pick("which_lookalike", first, end), len(tables.lookalike_frame) - 1)
  windows.append(_on_lookalike(tables.lookalike_box[row], u, signed, config, ratio, xp))

  def choose(positive, absent, beside, other, alike):
    negative = xp.where(_like(absent_chosen, absent), absent, beside)
    negative = xp.where(_like(impostor, other), other, negative)
    negative = xp.where(_like(lookalike, alike), alike, negative)
    return xp.where(_like(present, positive), positive, negative)

  return {
      "template_frame": template,
      "search_frame": choose(search, absent, beside, other, tables.lookalike_frame[row]),
      "template_window": xp.concatenate(
          [template_window_[:, :2], template_window_[:, 2:] * template_factor[:, None]], -1),
      "search_window": choose(*windows),
      "template_box": template_box,
      "search_box": search_box * present[:, None],
      "present": present,
  }


def _like(mask, array):
  return mask.reshape(mask.shape + (1,) * (array.ndim - 1))


def _styled(boxes, signed, config, xp):
  """Boxes about the same centres, looser or tighter: both of a pair alike, and a third as much in aspect (our choice).

  What an annotator includes in a box differs between data sets; the box of the first frame shows it.
  """
  reach = np.float32(np.log1p(config.style))
  size, aspect = signed("style") * reach, signed("style_aspect") * reach / 3
  wh = boxes[:, 2:] * xp.exp(xp.stack([size + aspect, size - aspect], -1))
  return xp.concatenate([boxes[:, :2] + (boxes[:, 2:] - wh) / 2, wh], -1)


def _jittered(boxes, signed, config, xp):
  """Boxes as a hasty hand draws them: off by up to `jitter` of their sides, each side as much longer or shorter.

  Only the template's: what it is off by must not be learned as what the box of this target is like (our choice).
  """
  reach, pair = np.float32(config.jitter), lambda a, b: xp.stack([signed(a), signed(b)], -1)
  wh = boxes[:, 2:] * xp.exp(pair("jitter_w", "jitter_h") * np.float32(np.log1p(config.jitter)))
  moved = pair("jitter_x", "jitter_y") * reach * boxes[:, 2:]
  return xp.concatenate([boxes[:, :2] + moved + (boxes[:, 2:] - wh) / 2, wh], -1)


def _around(boxes, signed, config, ratio, xp):
  """The search window of a positive pair, a little off as a tracker's is. The target's centre stays inside it."""
  window = template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(signed("scale") * np.float32(np.log1p(config.scale)))
  # `shift` is in target sizes, so that it means the same motion for every search factor.
  reach = xp.minimum(np.float32(config.shift) * xp.sqrt(boxes[:, 2] * boxes[:, 3]), np.float32(0.45) * side)
  return xp.stack([window[:, 0] + signed("x") * reach, window[:, 1] + signed("y") * reach, side], -1)


def _beside(boxes, u, config, ratio, xp):
  """A window of at most the nominal size just beside the target: near it, but without any of it."""
  window = template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(-u["scale"] * np.float32(np.log1p(config.scale)))
  factor = np.float32(_NEAREST) + np.float32(_FARTHEST - _NEAREST) * u["distance"]
  reach = (side + xp.maximum(boxes[:, 2], boxes[:, 3])) / 2 * factor
  angle = u["angle"] * np.float32(2 * np.pi)
  x, y = xp.cos(angle), xp.sin(angle)
  longest = xp.maximum(xp.abs(x), xp.abs(y))  # On the square around the target, not the circle: never overlapping it.
  return xp.stack([window[:, 0] + reach * x / longest, window[:, 1] + reach * y / longest, side], -1)


def _on_lookalike(boxes, u, signed, config, ratio, xp):
  """A window of at most the nominal size with a look-alike up to `_OFF` of its sizes beside the middle."""
  window = template_window(boxes)
  side = window[:, 2] * np.float32(ratio) * xp.exp(-u["scale"] * np.float32(np.log1p(config.scale)))
  reach = np.float32(_OFF) * xp.sqrt(boxes[:, 2] * boxes[:, 3])
  return xp.stack([window[:, 0] + signed("x") * reach, window[:, 1] + signed("y") * reach, side], -1)


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


@dataclasses.dataclass(frozen=True)
class Pair:
  """What to cut out of which frames: one example.

  Attributes:
    template: (sequence index, frame index); the target is visible there.
    search: (sequence index, frame index).
    template_window, search_window: float32 (centre x, centre y, side) in frame pixels, see `geometry`.
    template_box, search_box: float32 xywh in frame pixels; the search box is all zero in a negative pair.
    present: whether the search window holds the target.
  """

  template: tuple[int, int]
  search: tuple[int, int]
  template_window: np.ndarray
  search_window: np.ndarray
  template_box: np.ndarray
  search_box: np.ndarray
  present: bool


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
    for name, source in zip(names, kept):
      if not source:
        raise UserError(f"{name} has no sequence with a visible target")
    self.sequences = [sequence for source in kept for sequence in source]
    self.ratio = search_side / template_side
    self._config = config
    self.tables = _tables(kept, weights, needed_context(config, self.ratio), self.ratio)

  def plan(self, seed: int, index) -> dict[str, np.ndarray]:
    """`draw` for the examples `index` (integers in [0, 2**32), [n]) of the stream `seed`."""
    index = np.asarray(index)
    if index.min() < 0 or index.max() >= MAX_EXAMPLES:
      raise ValueError(f"examples {index.min()}..{index.max()}: expected numbers in [0, 2**32)")
    return draw(self.tables, seed, index.astype(np.uint32), self._config, self.ratio)

  def locate(self, frame: int) -> tuple[int, int]:
    """A row of the tables as (sequence index, frame index)."""
    sequence = int(np.searchsorted(self.tables.start, frame, side="right")) - 1
    return sequence, int(frame - self.tables.start[sequence])

  def __call__(self, seed: int, index: int) -> Pair:
    """Example `index` of the stream `seed`."""
    plan = {name: value[0] for name, value in self.plan(seed, [index]).items()}
    return Pair(template=self.locate(plan.pop("template_frame")), search=self.locate(plan.pop("search_frame")),
                present=bool(plan.pop("present")), **plan)


def anchors(sequence: Sequence) -> np.ndarray:
  """float32 [T, 4] xywh: every frame's own box or, where the target is absent, the one last (or else first) seen."""
  seen = np.flatnonzero(sequence.visible)
  last = np.searchsorted(seen, np.arange(len(sequence)), side="right") - 1
  return sequence.boxes[seen[np.maximum(last, 0)]]


def _tables(sources: list[list[Sequence]], weights: Seq[float], context: float, ratio: float) -> Tables:
  sequences = [sequence for source in sources for sequence in source]
  running = lambda counts: np.cumsum([0, *counts]).astype(np.int32)
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
