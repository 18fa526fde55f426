"""LaSOT: one-pass evaluation of its Matlab toolkit (HengLan/LaSOT_Evaluation_Toolkit).

Official: `success_auc`, `precision_20`, `normalized_precision` (at 0.20 of the target's size), each the mean per
sequence, then over sequences. Frames in which the target is fully occluded or out of view are hits at no threshold,
while the denominator stays all frames: a perfect tracker has less than 1. (Its 7 frames that are not flagged so but
have a box without a size are hits at every distance, as in OTB.) An invalid prediction (absent, or without a
positive size) repeats the one before. The got10k toolkit calls the mean of the normalised curve "normalized precision":
that is `normalized_precision_auc` here. The other numbers are additions of ours.
"""

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result

_ABSENT = ("full_occlusion", "out_of_view", "absent")


def _score(sequence: Sequence, result: Result) -> base.SequenceScores:
  truth = np.asarray(sequence.boxes, np.float64)
  predicted = _repeated(np.concatenate([truth[:1], result.boxes[1:]]))
  seen = sequence.visible
  flags = [sequence.frame_labels[key] for key in _ABSENT if key in sequence.frame_labels]
  absent = np.any(flags, axis=0) if flags else ~seen
  unseen = np.where(absent, np.inf, -1)  # The error of frames that do not show the target.
  numbers, curves = base.family(
      np.where(seen, metrics.iou(predicted, truth), -1),
      np.where(seen, metrics.center_errors(predicted, truth), unseen),
      np.where(seen, metrics.normalized_errors(predicted, truth), unseen))
  numbers["sa"] = metrics.state_accuracy(result.boxes, truth, seen)
  numbers["presence_accuracy"] = metrics.presence_accuracy(result.boxes, seen)
  return numbers, curves


def _repeated(boxes: np.ndarray) -> np.ndarray:
  """[T, 4] with every invalid row replaced by the last valid one; the first row is valid."""
  valid = (boxes[:, 2:] > 0).all(axis=1) & ~np.isnan(boxes).any(axis=1)
  return boxes[np.maximum.accumulate(np.where(valid, np.arange(len(boxes)), 0))]


PROTOCOL = base.Protocol("lasot", ("success_auc", "precision_20", "normalized_precision"), _score)
