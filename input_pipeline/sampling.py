"""Which pair example i of a run is: a pure function of (seed, i).

Nothing is shuffled or remembered, so a run resumes at any step in O(1), hosts share the stream by taking their own
indices of every batch, and the stream is the same for any number of hosts (our design).
"""

import dataclasses
from collections.abc import Sequence as Seq

import ml_collections
import numpy as np

from input_pipeline.crops import template_window
from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence


@dataclasses.dataclass(frozen=True)
class Pair:
  """What to cut out of which frames.

  Attributes:
    template: (sequence index, frame index); the target is visible there.
    search: (sequence index, frame index).
    template_window, search_window: (centre x, centre y, side) in frame pixels, see `crops`.
    template_box, search_box: xywh in frame pixels; the search box is all zero in a negative pair.
    present: whether the search window holds the target.
    augment_seed: what the augmentation's randomness starts from.
  """

  template: tuple[int, int]
  search: tuple[int, int]
  template_window: np.ndarray
  search_window: np.ndarray
  template_box: np.ndarray
  search_box: np.ndarray
  present: bool
  augment_seed: int


class PairSampler:
  """Draws pairs from weighted sources.

  A source is a list of sequences; a sequence is drawn uniformly within its source. The search frame lies within
  `max_gap` frames of the template's. The search window is the search frame's own (its box, so scale 1) moved by up to
  `shift` and scaled by up to `scale`, as a tracker that is a little off would place it.
  """

  def __init__(self, sources: Seq[Seq[Sequence]], weights: Seq[float], config: ml_collections.ConfigDict, *,
               template_side: int, search_side: int):
    """`config`: `config.data.pairs`, see configs/base.py.

    Raises:
      DataError: no sources, weights that do not fit, or a source without a visible target.
    """
    if not sources or len(weights) != len(sources) or min(weights) < 0 or sum(weights) <= 0:
      raise DataError(f"{len(sources)} data sources with the weights {list(weights)}: expected one weight >= 0 each")
    self.sequences = [sequence for source in sources for sequence in source if sequence.visible.any()]
    self._config, self._ratio = config, search_side / template_side
    self._visible = [np.flatnonzero(s.visible) for s in self.sequences]
    self._absent = [np.flatnonzero(~s.visible) for s in self.sequences]
    self._ranges, start = [], 0
    for i, source in enumerate(sources):
      count = sum(bool(s.visible.any()) for s in source)
      if not count:
        raise DataError(f"data source {i} has no sequence with a visible target")
      self._ranges.append((start, start + count))
      start += count
    self._cumulative = np.cumsum(np.asarray(weights, np.float64) / sum(weights))

  def __call__(self, seed: int, index: int) -> Pair:
    """Example `index` (any integer >= 0) of the stream `seed`."""
    config = self._config
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    source = min(int(np.searchsorted(self._cumulative, rng.random(), "right")), len(self._ranges) - 1)
    s = int(rng.integers(*self._ranges[source]))
    sequence, visible = self.sequences[s], self._visible[s]
    t = int(rng.choice(visible))
    near = visible[(visible >= t - config.max_gap) & (visible <= t + config.max_gap)]
    u = int(rng.choice(near))
    template_box = sequence.boxes[t].astype(np.float64)
    negative = rng.random() < config.negative
    if not negative:
      search, box = (s, u), sequence.boxes[u].astype(np.float64)
      window = self._jitter(rng, template_window(box), box)
    else:
      search, window = self._negative(rng, s, u)
      box = np.zeros(4)
    return Pair((s, t), search, self._template_jitter(rng, template_window(template_box)), window, template_box, box,
                not negative, int(rng.integers(2**63)))

  def _jitter(self, rng, window, box) -> np.ndarray:
    """The search window of a positive pair. The target's centre stays inside it."""
    side = window[2] * self._ratio * np.exp(rng.uniform(-1, 1) * np.log1p(self._config.scale))
    # `shift` is in target sizes, so that it means the same motion for every search factor.
    reach = min(self._config.shift * np.sqrt(box[2] * box[3]), 0.45 * side)
    return np.array([*(window[:2] + rng.uniform(-reach, reach, 2)), side])

  def _template_jitter(self, rng, window) -> np.ndarray:
    scale = np.exp(rng.uniform(-1, 1) * np.log1p(self._config.template_scale))
    return np.array([window[0], window[1], window[2] * scale])

  def _negative(self, rng, s, u):
    """A frame and window without the target: where it is absent if the sequence has such frames, else off target."""
    absent = self._absent[s]
    if len(absent) and rng.random() < 0.5:
      v = int(rng.choice(absent))
      last_seen = self._visible[s][max(np.searchsorted(self._visible[s], v) - 1, 0)]
      window = template_window(self.sequences[s].boxes[last_seen])
      return (s, v), np.array([*window[:2], window[2] * self._ratio])
    if rng.random() < 0.5:
      s = int(rng.integers(len(self.sequences)))
      u = int(rng.choice(self._visible[s]))
    box = self.sequences[s].boxes[u].astype(np.float64)
    window = template_window(box)
    side = window[2] * self._ratio * np.exp(rng.uniform(-1, 1) * np.log1p(self._config.scale))
    # Just beyond the window's half plus the target's own half, in a random direction: the target is near, not in it.
    angle, extra = rng.uniform(0, 2 * np.pi), rng.uniform(1.05, 2.0)
    reach = (side + box[2:].max()) / 2 * extra
    direction = np.array([np.cos(angle), np.sin(angle)])
    direction /= np.abs(direction).max()  # On the square around the target, not the circle: never overlapping it.
    return (s, u), np.array([*(window[:2] + reach * direction), side])
