"""Anti-UAV (300/318): the state accuracy of its repository (ZhaoJ9014/Anti-UAV), with all else one may ask for.

Official: `sa`. The oldest baseline script accepted only `[0]` as absent; here, as in the later scripts, `[]` and any
single number do. The success/precision family is that of `antiuav410`; `challenge_accuracy` is the
challenge's formula (`metrics.challenge_accuracy`).
"""

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.protocols import antiuav410, base
from siamdff_jax.results import Result


def score_sequence(sequence: Sequence, result: Result) -> base.SequenceScores:
  """Numbers and curves of one sequence; `challenge` has the same ones."""
  numbers, curves = antiuav410.score_sequence(sequence, result)
  numbers["challenge_accuracy"] = metrics.challenge_accuracy(result.boxes, sequence.boxes, sequence.visible)
  return numbers, curves


PROTOCOL = base.Protocol("antiuav", ("sa",), score_sequence)
