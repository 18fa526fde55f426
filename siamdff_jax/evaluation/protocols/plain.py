"""Our own protocol, for data without a benchmark: only frames that show the target count for success and precision.

It equals no official toolkit. Differences from `otb`: frames with an absent target are left out of the
success/precision family instead of being misses of one and hits of the other; a truth that touches the image's border
is an ordinary truth; an absent prediction is a miss. What happens in absent frames is told by `sa` and
`presence_accuracy`. As everywhere the first prediction, which was given to the tracker, is replaced by the first truth.
"""

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result


def _score(sequence: Sequence, result: Result) -> base.SequenceScores:
  seen = sequence.visible
  truth = np.asarray(sequence.boxes, np.float64)
  predicted = np.concatenate([truth[:1], result.boxes[1:]])[seen]
  numbers, curves = base.family(metrics.iou(predicted, truth[seen]), metrics.center_errors(predicted, truth[seen]),
                                metrics.normalized_errors(predicted, truth[seen]))
  numbers["sa"] = metrics.state_accuracy(result.boxes, truth, seen)
  numbers["presence_accuracy"] = metrics.presence_accuracy(result.boxes, seen)
  return numbers, curves


PROTOCOL = base.Protocol("plain", ("success_auc", "precision_5", "normalized_precision", "sa"), _score)
