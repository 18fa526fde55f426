"""One protocol per benchmark; each file says which official toolkit it equals and where.

    scores = protocols.evaluate("antiuav410", sequences, results)
    scores.metrics  # {"protocol": ..., "overall": {...}, "sequences": {name: {...}}}, numbers in 0-1
    scores.curves   # {"success": [21], "precision": [51], "normalized_precision": [51]}

Every protocol reports the same family of names, so that tables are uniform; `Protocol.official` says which of them
are the benchmark's own, and they come first.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Ordered

from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation.protocols import antiuav, antiuav410, challenge, otb, plain
from siamdff_jax.evaluation.protocols.base import Protocol, Scores
from siamdff_jax.evaluation.results import Result

PROTOCOLS: dict[str, Protocol] = {
    "antiuav": antiuav.PROTOCOL,
    "antiuav410": antiuav410.PROTOCOL,
    "challenge": challenge.PROTOCOL,
    "otb": otb.PROTOCOL,
    "plain": plain.PROTOCOL,
}


def evaluate(protocol: str, sequences: Ordered[Sequence], results: Mapping[str, Result]) -> Scores:
  """Scores results with the protocol of that name; see `Protocol.evaluate`."""
  if protocol not in PROTOCOLS:
    raise DataError(f"no protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
  return PROTOCOLS[protocol].evaluate(sequences, results)
