"""Where and how a tracker fails: by attribute, target size and speed; losses and returns; knowing that it is away.

All of it is ours and the same for every protocol, except that scores by attribute are the protocol's own. The first
frame, whose box is given, counts nowhere.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics, statistics
from siamdff_jax.evaluation.statistics import Estimate
from siamdff_jax.results import Result

# Upper bounds of the bins; the last bin has none. Size: sqrt(w h) in pixels. Speed: motion of the centre from one frame
# to the next, in target sizes.
SIZE_BOUNDS = (8.0, 16.0, 32.0)
SPEED_BOUNDS = (0.1, 0.3, 1.0)
LOST_OVERLAP = 0.1  # Of a lost target at most, and
LOST_FRAMES = 10  # for so many visible frames in a row (VOT2020, Kristan et al.).
BACK_FRAMES = 15  # From a target's return on: in one of them the tracker is to be back on it. Our choice.
NEAR = 5.0  # Pixels: centre error of a hit, in parts of the data; 20 is no test for tiny targets.
_ROC_POINTS = 200
_SCORE_BINS = 10


@dataclasses.dataclass(frozen=True)
class Group:
  """Scores on a part of the data.

  Attributes:
    name: an attribute, or a bin as text.
    sequences, frames: how many are in it.
    auc: by tracker, the area under the success curve. Of an attribute: the protocol's, the mean over its sequences;
      of a bin: over the bin's frames of all sequences.
    precision: by tracker, the share of frames with a centre error of at most NEAR; of the same frames.
  """

  name: str
  sequences: int
  frames: int
  auc: Mapping[str, Estimate]
  precision: Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Failures:
  """The losses of one tracker on one sequence, and the target's returns into sight.

  The target is lost where IoU is at most LOST_OVERLAP in LOST_FRAMES visible frames in a row, until it exceeds that.
  After a return the tracker is back in time if IoU exceeds LOST_OVERLAP in one of BACK_FRAMES frames, of which the
  first is the one that shows the target again. A return at the end of a sequence has fewer frames, and still counts.

  Attributes:
    first: the frame in which the first loss begins, or None.
    losses: how many there are.
    lost_frames: visible frames in all of them.
    longest: visible frames in the longest.
    recovered: losses that ended.
    lost_at_end: whether the last one did not.
    returns: absences that end with the target in sight.
    back: returns after which the tracker is back in time.
  """

  first: int | None
  losses: int
  lost_frames: int
  longest: int
  recovered: int
  lost_at_end: bool
  returns: int
  back: int


@dataclasses.dataclass(frozen=True)
class Recovery:
  """The returns and the losses for good of one tracker, over all sequences (see `Failures`).

  Attributes:
    returns: of the target, how many.
    back: the share of them after which the tracker is back in time. Interval by bootstrap over the sequences that have
      returns (none of width where all agree); NaN without returns.
    lost_for_good: the share of the sequences at whose end the target is lost, with Wilson's interval.
  """

  returns: int
  back: Estimate
  lost_for_good: Estimate


@dataclasses.dataclass(frozen=True)
class Presence:
  """How well a tracker knows that the target is there, over the frames of all sequences.

  Attributes:
    false_alarms, detections: [K], the ROC of its scores: shares of the absent and of the visible frames whose score
      reaches a falling threshold. Empty where its files hold no scores.
    auc: the area under it; NaN without scores.
    point: (false alarms, detections) of its own decisions.
    reliability: float [B, 3], by tenth of the scale 0..1 in which there are scores: their mean, the share of these
      frames that show the target, the number of frames. Empty where a score is outside of 0..1.
    calibration_error: the mean over all frames of the difference of the first two (the expected calibration error of
      Naeini et al. 2015); NaN where `reliability` is empty.
  """

  false_alarms: np.ndarray
  detections: np.ndarray
  auc: float
  point: tuple[float, float]
  reliability: np.ndarray
  calibration_error: float


def overlaps(sequence: Sequence, result: Result) -> np.ndarray:
  """IoU per frame, float [T]: NaN where the target is absent, 0 where only the prediction is."""
  found = np.nan_to_num(metrics.iou(result.boxes, sequence.boxes))
  return np.where(sequence.visible, found, np.nan)


def errors(sequence: Sequence, result: Result) -> np.ndarray:
  """Centre error per frame in pixels, float [T]: NaN where the target is absent, infinite where only the prediction is.
  """
  found = np.nan_to_num(metrics.center_errors(result.boxes, sequence.boxes), nan=np.inf)
  return np.where(sequence.visible, found, np.nan)


def failures(overlap: np.ndarray) -> Failures:
  """Finds the losses and the returns in the overlaps [T] of one sequence (see `overlaps`)."""
  visible = np.flatnonzero(~np.isnan(overlap))
  visible = visible[visible > 0]
  low = np.concatenate([[False], overlap[visible] <= LOST_OVERLAP, [False]])
  edges = np.flatnonzero(low[1:] != low[:-1])
  begins, ends = edges[::2], edges[1::2]  # Half-open runs of low overlap, counted in visible frames.
  long = ends - begins >= LOST_FRAMES
  begins, lengths = begins[long], (ends - begins)[long]
  at_end = bool(len(begins)) and int(begins[-1] + lengths[-1]) == len(visible)
  away = np.isnan(overlap)
  returns = np.flatnonzero(away[:-1] & ~away[1:]) + 1
  return Failures(
      first=int(visible[begins[0]]) if len(begins) else None, losses=len(begins), lost_frames=int(lengths.sum()),
      longest=int(lengths.max(initial=0)), recovered=len(begins) - at_end, lost_at_end=at_end,
      returns=len(returns), back=sum(bool((overlap[t:t + BACK_FRAMES] > LOST_OVERLAP).any()) for t in returns))


def recovery(found: Ordered[Failures]) -> Recovery:
  """Pools what `failures` found in the sequences of a data set."""
  having = [f for f in found if f.returns]
  back = Estimate(np.nan, np.nan, np.nan)
  if having:
    (back,) = statistics.estimates(np.array([[f.back / f.returns for f in having]]),
                                    np.array([f.returns for f in having]))
  lost = sum(f.lost_at_end for f in found)
  return Recovery(sum(f.returns for f in having), back, statistics.share(lost, len(found)))


def presence(sequences: Ordered[Sequence], results: Mapping[str, Result]) -> Presence | None:
  """The ROC of one tracker's scores; None where no frame is absent."""
  there = np.concatenate([s.visible[1:] for s in sequences])
  if there.all() or not there.any():
    return None
  said = np.concatenate([results[s.name].present[1:] for s in sequences])
  point = (float(said[~there].mean()), float(said[there].mean()))
  given = [results[s.name].score for s in sequences]
  scores = np.concatenate([np.array([np.nan]) if score is None else score[1:] for score in given])
  if np.isnan(scores).any():
    return Presence(np.zeros(0), np.zeros(0), np.nan, point, np.zeros((0, 3)), np.nan)
  levels, which = np.unique(-scores, return_inverse=True)

  def share_from_each(kind: np.ndarray) -> np.ndarray:  # [levels + 1], of the frames of a kind (bool [N]).
    counts = np.bincount(which[kind], minlength=len(levels))
    return np.concatenate([[0], np.cumsum(counts)]) / kind.sum()

  false_alarms, detections = share_from_each(~there), share_from_each(there)
  area = float(np.trapezoid(detections, false_alarms))
  shown = np.unique(np.linspace(0, len(levels), _ROC_POINTS).round().astype(int))
  reliability = _reliability(scores, there)
  gaps = np.abs(reliability[:, 0] - reliability[:, 1])
  error = float((gaps * reliability[:, 2]).sum() / len(scores)) if len(gaps) else np.nan
  return Presence(false_alarms[shown], detections[shown], area, point, reliability, error)


def _reliability(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
  """See `Presence.reliability`; scores [N], there: bool [N]."""
  if scores.min() < 0 or scores.max() > 1:
    return np.zeros((0, 3))
  which = np.minimum((scores * _SCORE_BINS).astype(int), _SCORE_BINS - 1)
  sums = [np.bincount(which, values, _SCORE_BINS) for values in (scores, there, np.ones(len(scores)))]
  used = sums[2] > 0
  return np.stack([sums[0][used] / sums[2][used], sums[1][used] / sums[2][used], sums[2][used]], axis=1)


def by_attribute(sequences: Ordered[Sequence], auc: Mapping[str, np.ndarray], precision: Mapping[str, np.ndarray],
                 weights: np.ndarray) -> tuple[Group, ...]:
  """Scores of the sequences that have an attribute, for every attribute that occurs, by name.

  Args:
    sequences: S labelled sequences.
    auc, precision: by tracker, [S] scores of the protocol.
    weights: [S] weights of the protocol's mean.
  """
  groups = []
  for name in sorted({attribute for s in sequences for attribute in s.attributes}):
    inside = np.array([name in s.attributes for s in sequences])
    frames = sum(len(s) for s in sequences if name in s.attributes)
    groups.append(_group(name, frames, {tracker: x[inside] for tracker, x in auc.items()},
                         {tracker: x[inside] for tracker, x in precision.items()}, weights[inside]))
  return tuple(groups)


PerFrame = Mapping[str, Mapping[str, np.ndarray]]  # tracker -> sequence -> [T]


def by_size(sequences: Ordered[Sequence], overlaps: PerFrame, errors: PerFrame) -> tuple[Group, ...]:
  """Scores by the true size of the target in the frame, sqrt(w h)."""
  sizes = [np.sqrt(s.boxes[:, 2].astype(np.float64) * s.boxes[:, 3]) for s in sequences]
  return _binned(sequences, overlaps, errors, sizes, SIZE_BOUNDS, "px")


def by_speed(sequences: Ordered[Sequence], overlaps: PerFrame, errors: PerFrame) -> tuple[Group, ...]:
  """Scores by the motion of the true centre since the frame before, in sizes there; frames after an absence are out."""
  speeds = []
  for s in sequences:
    boxes = s.boxes.astype(np.float64)
    size = np.sqrt(boxes[:-1, 2] * boxes[:-1, 3])
    moved = np.linalg.norm(np.diff(metrics.centers(boxes), axis=0), axis=1)
    both = s.visible[1:] & s.visible[:-1]
    speed = np.divide(moved, size, out=np.full(len(moved), np.nan), where=both & (size > 0))
    speeds.append(np.concatenate([[np.nan], speed]))
  return _binned(sequences, overlaps, errors, speeds, SPEED_BOUNDS, "sizes/frame")


def _binned(sequences: Ordered[Sequence], overlaps: PerFrame, errors: PerFrame, values: Ordered[np.ndarray],
            bounds: Ordered[float], unit: str) -> tuple[Group, ...]:
  """Groups of frames by `values` ([T] for each sequence; NaN: in no bin)."""
  edges = (0.0, *bounds, np.inf)
  groups = []
  for low, high in itertools.pairwise(edges):
    inside = [s.visible & (v >= low) & (v < high) & (np.arange(len(v)) > 0)
              for s, v in zip(sequences, values, strict=True)]
    frames = np.array([mask.sum() for mask in inside])
    used = np.flatnonzero(frames)
    if not len(used):
      continue
    masks = {sequences[i].name: inside[i] for i in used.tolist()}
    name = f"< {high:g} {unit}" if not low else f"> {low:g} {unit}" if high == np.inf else f"{low:g}-{high:g} {unit}"
    groups.append(_group(name, int(frames.sum()), _measured(_success, overlaps, masks),
                         _measured(_precision, errors, masks), frames[used]))
  return tuple(groups)


def _measured(measure: Callable[[np.ndarray], float], found: PerFrame,
              masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """By tracker, [S]: a measure of a part of each sequence's frames; `masks`: by sequence, bool [T]."""
  return {tracker: np.array([measure(by_sequence[name][mask]) for name, mask in masks.items()])
          for tracker, by_sequence in found.items()}


def _group(name: str, frames: int, auc: Mapping[str, np.ndarray], precision: Mapping[str, np.ndarray],
           weights: np.ndarray) -> Group:
  found = statistics.estimates(np.array([*auc.values(), *precision.values()]), weights)
  of_auc, of_precision = found[:len(auc)], found[len(auc):]
  return Group(name, len(weights), frames, dict(zip(auc, of_auc, strict=True)),
               dict(zip(precision, of_precision, strict=True)))


def _success(overlap: np.ndarray) -> float:
  return metrics.area_under_curve(metrics.success_curve(overlap))


def _precision(error: np.ndarray) -> float:
  return float((error <= NEAR).mean())
