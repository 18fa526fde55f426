"""Reset-based runs as in the VOT challenges of 2013 to 2019 (Kristan et al.), on axis-aligned boxes.

A failure is a visible frame whose overlap with the truth is 0; the tracker is then started anew (5 frames later,
`scripts/evaluate.py --run reset`). Official: `accuracy`, the mean IoU between starts and failures without the first 10
frames from each start on; `failures` per sequence, the fewer the better; `failures_per_100` frames. The expected
average overlap is not offered, and VOT's own data, with rotated boxes, are not read. Both are means over sequences.
Where no frame is left for the accuracy it is 0 (our choice).
"""

import itertools

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import base
from siamdff_jax.results import Result

BURN_IN = 10  # Frames.


def _score(sequence: Sequence, result: Result) -> base.SequenceScores:
  overlap = np.nan_to_num(metrics.iou(result.boxes, sequence.boxes))
  missed = sequence.visible & (overlap == 0)
  accurate, failures = np.zeros(len(overlap), bool), 0
  for start, stop in itertools.pairwise((*result.starts, len(overlap))):
    failed = start + 1 + np.flatnonzero(missed[start + 1:stop])
    if len(failed):
      if result.present[failed[0] + 1:stop].any():
        raise UserError(f"{sequence.name}: the tracker goes on after its failure in frame {failed[0]}, expected a "
                        "reset-based run (scripts/evaluate.py --run reset)")
      failures += 1
    accurate[start + BURN_IN:failed[0] if len(failed) else stop] = True
  counted = overlap[accurate & sequence.visible]
  return {"accuracy": float(counted.mean()) if len(counted) else 0.0, "failures": float(failures),
          "failures_per_100": 100.0 * failures / len(overlap)}, {}


PROTOCOL = base.Protocol("vot", ("accuracy", "failures", "failures_per_100"), _score, reset_based=True)
