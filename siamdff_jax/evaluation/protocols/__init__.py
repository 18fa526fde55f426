"""One protocol per benchmark; each file says which official toolkit it equals and where.

    scores = protocols.evaluate("antiuav410", sequences, results)
    scores.metrics  # {"protocol": ..., "overall": {...}, "sequences": {name: {...}}}, numbers in 0-1
    scores.curves   # {"success": [21], "precision": [51], "normalized_precision": [51]}

Every protocol but `vot` reports the same family of names, so that tables are uniform; `Protocol.official` says which of
them are the benchmark's own, and they come first.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation.protocols import antiuav, antiuav410, challenge, got10k, lasot, otb, plain, vot
from siamdff_jax.evaluation.protocols.base import Protocol, Scores
from siamdff_jax.results import Result

PROTOCOLS: dict[str, Protocol] = {
    "antiuav": antiuav.PROTOCOL,
    "antiuav410": antiuav410.PROTOCOL,
    "challenge": challenge.PROTOCOL,
    "got10k": got10k.PROTOCOL,
    "lasot": lasot.PROTOCOL,
    "otb": otb.PROTOCOL,
    "plain": plain.PROTOCOL,
    "vot": vot.PROTOCOL,
}
# The protocol of a format's own benchmark, where it is not called like the format.
_OF_FORMAT = {"cst_antiuav": "antiuav410", "lsotb_tir": "otb", "ptb_tir": "otb", "uav123": "otb", "dtb70": "otb"}


def of_format(format: str) -> str:
  """The name of the protocol that a data set of this format is scored by when nobody says otherwise."""
  return _OF_FORMAT.get(format, format)


def evaluate(protocol: str, sequences: Ordered[Sequence], results: Mapping[str, Result]) -> Scores:
  """Scores results with the protocol of that name; see `Protocol.evaluate`."""
  if protocol not in PROTOCOLS:
    raise UserError(f"no protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
  return PROTOCOLS[protocol].evaluate(sequences, results)


def evaluate_runs(protocol: str, sequences: Ordered[Sequence], runs: Ordered[Mapping[str, Result]]) -> Scores:
  """The mean scores of a tracker that ran several times (repetitions, or starts from moved boxes).

  Args:
    protocol, sequences: as for `evaluate`.
    runs: the results of each run, at least one.

  Returns:
    The scores; of several runs, `metrics["runs"]` holds each one's overall numbers.
  """
  scores = [evaluate(protocol, sequences, run) for run in runs]
  if len(scores) == 1:
    return scores[0]
  metrics = {"protocol": protocol, "overall": _mean([s.metrics["overall"] for s in scores]),
             "sequences": {name: _mean([s.metrics["sequences"][name] for s in scores])
                           for name in scores[0].metrics["sequences"]},
             "runs": [s.metrics["overall"] for s in scores]}
  curves = {key: np.mean([s.curves[key] for s in scores], axis=0) for key in scores[0].curves}
  return Scores(metrics, curves, scores[0].weights)


def _mean(of_runs: Ordered[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each number over runs."""
  return {key: float(np.mean([numbers[key] for numbers in of_runs])) for key in of_runs[0]}
