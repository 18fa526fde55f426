"""GOT-10k: the got10k toolkit's ExperimentGOT10k on a set with public labels (its validation set).

Official: `ao` (average overlap), `sr_50` and `sr_75` (share of frames with IoU above 0.5, 0.75). The first frame and
frames whose label `cover` is 0 are dropped, boxes are clipped to the image, and all frames of all sequences are pooled.
`tests/test_got10k_toolkit.py` runs that toolkit on the same boxes. An absent prediction has overlap 0 (the toolkit
knows none). On data without `cover` labels the visible frames count (our choice). The other numbers are additions of
ours, pooled alike.
"""

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape, Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result


def _counted(sequence: Sequence) -> np.ndarray:
  """bool [T - 1]: which frames after the first count."""
  cover = sequence.frame_labels.get("cover")
  return (sequence.visible if cover is None else np.asarray(cover) > 0)[1:]


def _weight(sequence: Sequence) -> float:
  count = int(_counted(sequence).sum())
  if not count:
    raise UserError(f"{sequence.name}: no frame after the first shows the target, expected at least one to score")
  return count


def _score(sequence: Sequence, result: Result) -> base.SequenceScores:
  if sequence.shape is None:
    raise UserError(f"{sequence.name}: the size of its frames is not known, expected frames or a resolution in "
                    "meta_info.ini; boxes are clipped to the image here")
  counted = _counted(sequence)
  truth = _clipped(sequence.boxes[1:], sequence.shape)[counted]
  predicted = _clipped(result.boxes[1:], sequence.shape)[counted]
  overlaps = np.nan_to_num(metrics.iou(predicted, truth))
  numbers = {"ao": float(overlaps.mean()), "sr_50": float((overlaps > 0.5).mean()),
             "sr_75": float((overlaps > 0.75).mean())}
  others, curves = base.family(overlaps, metrics.center_errors(predicted, truth),
                               metrics.normalized_errors(predicted, truth))
  numbers.update(others)
  numbers["sa"] = metrics.state_accuracy(result.boxes, sequence.boxes, sequence.visible)
  numbers["presence_accuracy"] = metrics.presence_accuracy(result.boxes, sequence.visible)
  return numbers, curves


def _clipped(boxes: np.ndarray, shape: FrameShape) -> np.ndarray:
  """Boxes [T, 4] cut to the frame as the toolkit does it: from 0 to its sides, in the files' 1-based coordinates."""
  boxes, limit = np.asarray(boxes, np.float64) + (1, 1, 0, 0), np.asarray(shape.wh, np.float64)
  corner = np.clip(boxes[:, :2], 0, limit)
  return np.concatenate([corner, np.clip(boxes[:, 2:], 0, limit - corner)], axis=1)


PROTOCOL = base.Protocol("got10k", ("ao", "sr_50", "sr_75"), _score, weight=_weight)
