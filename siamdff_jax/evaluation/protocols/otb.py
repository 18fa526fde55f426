"""OTB, UAV123/UAV20L, DTB70, LSOTB-TIR, PTB-TIR: one-pass evaluation (OPE) of the Matlab OTB toolkit v1.0.

Equals that toolkit's per-frame errors and means: the 42 scores published with UAV123_20L come out within 0.0005
(tests/test_evaluation.py). Official: `success_auc`, `precision_20`. Its coordinates are 1-based, ours are not, which
matters only for truth at the image's border. These benchmarks know no "absent"; a prediction of it counts as a
miss at every threshold (our choice). The other numbers are additions of ours.
"""

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result


def _score(sequence: Sequence, result: Result) -> base.SequenceScores:
  truth = np.asarray(sequence.boxes, np.float64)
  numbers, curves = base.otb_family(result.boxes, truth, origin=1)
  numbers["sa"] = metrics.state_accuracy(result.boxes, truth, sequence.visible)
  numbers["presence_accuracy"] = metrics.presence_accuracy(result.boxes, sequence.visible)
  return numbers, curves


PROTOCOL = base.Protocol("otb", ("success_auc", "precision_20"), _score)
