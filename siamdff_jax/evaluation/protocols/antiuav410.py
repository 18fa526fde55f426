"""Anti-UAV410: the evaluation scripts of its repository (HwangBo94/Anti-UAV410, experiments and SA script).

Official: `sa`, `success_auc`, `precision_20`, each the mean per sequence, then over sequences. For success and
precision an absent prediction becomes the box 0,0,0,0 (so near the upper left corner it can even be a precision hit);
for SA it stays absent, and the first prediction is not replaced. Where the scripts cut a result of another length
with a warning, we raise an error. The other numbers are additions of ours.

What the label reader mends is scored as mended: the scripts skip the SA of frames that exist with a zero box and
count the success of boxes flagged as absent, here both are absent frames (27 of the 438,397).
"""

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result


def score_sequence(sequence: Sequence, result: Result) -> base.SequenceScores:
  """Numbers and curves of one sequence; also the base of `antiuav` and `challenge`."""
  truth = np.asarray(sequence.boxes, np.float64)
  numbers, curves = base.otb_family(np.nan_to_num(result.boxes), truth, origin=0)
  numbers["sa"] = metrics.state_accuracy(result.boxes, truth, sequence.visible)
  numbers["presence_accuracy"] = metrics.presence_accuracy(result.boxes, sequence.visible)
  return numbers, curves


PROTOCOL = base.Protocol("antiuav410", ("sa", "success_auc", "precision_20"), score_sequence)
