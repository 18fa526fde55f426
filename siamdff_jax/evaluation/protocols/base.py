"""What all protocols share: the checks, the mean over sequences, the form of the output."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.results import Result


@dataclasses.dataclass(frozen=True)
class Scores:
  """How well a tracker did.

  Attributes:
    metrics: {"protocol": str, "overall": {metric: number}, "sequences": {name: {metric: number}}}, JSON-ready.
    curves: "success" [21], "precision" [51], "normalized_precision" [51], the mean over the sequences; their
      thresholds are in `metrics.py`. Empty where the protocol has none.
    weights: how much each sequence counts in a mean, by name.
  """

  metrics: dict
  curves: dict[str, np.ndarray]
  weights: dict[str, float]


# (numbers by name, curves by name) of one sequence.
SequenceScores = tuple[dict[str, float], dict[str, np.ndarray]]


def _one(sequence: Sequence) -> float:
  del sequence
  return 1.0


@dataclasses.dataclass(frozen=True)
class Protocol:
  """A benchmark's way of scoring.

  Attributes:
    name: as on the command line.
    official: the metric names that the benchmark itself reports, the main one first.
    score_sequence: (sequence, result of the same length) -> numbers and curves.
    weight: how much a sequence counts; 1 unless the protocol pools frames.
    reset_based: whether results are of trackers that were started anew after each failure.
  """

  name: str
  official: tuple[str, ...]
  score_sequence: Callable[[Sequence, Result], SequenceScores]
  weight: Callable[[Sequence], float] = _one
  reset_based: bool = False

  def evaluate(self, sequences: Ordered[Sequence], results: Mapping[str, Result]) -> Scores:
    """Scores every sequence, then takes the weighted mean over sequences.

    Args:
      sequences: the labelled sequences; frames are not needed.
      results: a result for each by name; further results are ignored.

    Returns:
      The scores. `overall` does not depend on the order of the sequences, to the last bit.

    Raises:
      UserError: no sequences, two of the same name, a missing result, one of another length, one with restarts where
        the protocol knows none, or a target that is absent in the first frame.
    """
    if not sequences:
      raise UserError("no sequences to score, expected at least one")
    by_sequence: dict[str, dict[str, float]] = {}
    curves, weights = {}, {}
    for sequence in sequences:
      name = sequence.name
      if name in by_sequence:
        raise UserError(f"two sequences are named {name}, expected unique names")
      if name not in results:
        raise UserError(f"no result for the sequence {name}, expected one for each of {len(sequences)} sequences")
      if len(results[name]) != len(sequence):
        raise UserError(f"the result for {name} has {len(results[name])} boxes, expected {len(sequence)}, "
                        "one for each labelled frame")
      if not sequence.visible[0]:
        raise UserError(f"the target of {name} is absent in the first frame, expected a box to start a tracker with")
      if len(results[name].starts) > 1 and not self.reset_based:
        raise UserError(f"the tracker was started {len(results[name].starts)} times on {name}: a reset-based run, "
                        "which only the protocol vot can score")
      weights[name] = float(self.weight(sequence))
      numbers, curves[name] = self.score_sequence(sequence, results[name])
      by_sequence[name] = {**{key: numbers[key] for key in self.official}, **numbers}  # The official ones first.
    total = math.fsum(weights.values())
    overall = {key: math.fsum(weights[name] * numbers[key] for name, numbers in by_sequence.items()) / total
               for key in next(iter(by_sequence.values()))}
    mean_curves = {key: sum((weights[name] / total * curves[name][key] for name in sorted(curves)), np.zeros(()))
                   for key in next(iter(curves.values()))}
    return Scores({"protocol": self.name, "overall": overall, "sequences": by_sequence}, mean_curves, weights)


def family(overlaps: np.ndarray, errors: np.ndarray, normalized: np.ndarray) -> SequenceScores:
  """The success/precision family from per-frame values, float [T] each, of the frames that count.

  Names: `success_auc`; `success_50`, the success at IoU 0.5; `precision_20` and `precision_5`, at 20 and 5 px (for
  tiny targets 20 px is no test); `normalized_precision`, at 0.20 of the target's size (LaSOT);
  `normalized_precision_auc`, the mean of that curve over 0..0.5 (what the got10k toolkit reports).
  """
  success = metrics.success_curve(overlaps)
  precision = metrics.precision_curve(errors)
  normalized_precision = metrics.precision_curve(normalized, metrics.NORMALIZED_THRESHOLDS)
  numbers = {
      "success_auc": metrics.area_under_curve(success),
      "success_50": float(success[10]),
      "precision_20": float(precision[20]),
      "precision_5": float(precision[5]),
      "normalized_precision": float(normalized_precision[20]),
      "normalized_precision_auc": metrics.area_under_curve(normalized_precision),
  }
  return numbers, {"success": success, "precision": precision, "normalized_precision": normalized_precision}


def otb_family(predicted: np.ndarray, truth: np.ndarray, origin: int) -> SequenceScores:
  """The family as OTB's toolkit and those after it count frames.

  The first prediction is replaced by the first truth. Where the truth is not positive in all four numbers
  (absent, but also a box beginning at coordinate 0 or before), IoU and centre errors are -1: a miss at every IoU
  threshold **and a hit at every distance**. Odd, but needed to reproduce published numbers.

  Args:
    predicted: float [T, 4], NaN rows are absent.
    truth: float [T, 4], 0-based as all our boxes.
    origin: the coordinate of the first pixel where the toolkit asks for "positive": 1 in Matlab, else 0.
  """
  predicted = np.concatenate([truth[:1], predicted[1:]])
  counted = (truth + (origin, origin, 0, 0) > 0).all(axis=1)
  return family(*(np.where(counted, values, -1) for values in (
      metrics.iou(predicted, truth), metrics.center_errors(predicted, truth),
      metrics.normalized_errors(predicted, truth))))
