"""Several trackers on the same data: all that a report shows, as plain data."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import analysis, pairing, protocols, statistics
from siamdff_jax.evaluation.analysis import Failures, Group, Presence, Recovery
from siamdff_jax.evaluation.pairing import OverRuns, Unit
from siamdff_jax.evaluation.protocols import PROTOCOLS, Scores
from siamdff_jax.evaluation.statistics import Difference, Estimate
from siamdff_jax.results import Result

__all__ = ["Comparison", "Difference", "Estimate", "Failures", "Group", "Presence", "Recovery", "compare"]

_NAMED = 10  # Of the sequences that are left out.
_Column = Callable[[str, str], np.ndarray]  # (tracker, metric) -> [S], the score on each sequence.


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What the results of trackers say about them, and about one another.

  Attributes:
    protocol: its name.
    main: the metric that ranks, the first of the protocol's official ones.
    trackers, sequences: names, in the order given.
    scores: by tracker.
    estimates: tracker -> metric -> its overall value with an interval.
    differences: (a, b) -> the difference of their main scores, for every pair, a before b in `trackers`.
    groups: "attribute", "target size", "target speed" -> scores on parts of the data; left out where there are none.
    failures: tracker -> sequence.
    recovery: by tracker; empty for reset-based runs, where the truth brings a tracker back.
    presence: by tracker; empty where no frame of the data is absent.
    overlaps: tracker -> sequence -> IoU per frame, float [T]; NaN where the target is absent.
    units: by tracker, what each of its runs is.
    left_out: what is wrong with the sequences of the data that are not in here, by name.

  Of a tracker with several runs, scores are their mean; target size and speed, and everything from `failures` on, are
  of the first run.
  """

  protocol: str
  main: str
  trackers: tuple[str, ...]
  sequences: tuple[str, ...]
  scores: Mapping[str, Scores]
  estimates: Mapping[str, Mapping[str, Estimate]]
  differences: Mapping[tuple[str, str], Difference]
  groups: Mapping[str, tuple[Group, ...]]
  failures: Mapping[str, Mapping[str, Failures]]
  recovery: Mapping[str, Recovery]
  presence: Mapping[str, Presence]
  overlaps: Mapping[str, Mapping[str, np.ndarray]]
  units: Mapping[str, tuple[Unit, ...]]
  left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def missing(self) -> str:
    """See `missing_note`."""
    return missing_note(self.left_out, len(self.sequences) + len(self.left_out))

  def runs(self, tracker: str, metric: str = "") -> list[float]:
    """A score, by default the main one, of each run of a tracker that ran several times; else nothing."""
    return [overall[metric or self.main] for overall in self.scores[tracker].metrics.get("runs", [])]

  def between_runs(self, a: str, b: str, metric: str = "") -> OverRuns | None:
    """Score of a minus that of b with its interval over runs; None unless both ran several times."""
    runs = self.runs(a, metric), self.runs(b, metric)
    return pairing.over_runs(runs[0], self.units[a], runs[1], self.units[b]) if all(runs) else None


def missing_note(left_out: Collection[str], total: int) -> str:
  """The sentence that goes with every score of a part of a data set; empty where none of its sequences is left out."""
  if not left_out:
    return ""
  names, more = ", ".join(sorted(left_out)[:_NAMED]), len(left_out) - _NAMED
  return (f"{len(left_out)} of {total} sequences were left out, the scores are of the other {total - len(left_out)}: "
          f"{names}{f' and {more} more' if more > 0 else ''} {'is' if len(left_out) == 1 else 'are'} missing")


def compare(protocol: str, sequences: Ordered[Sequence],
            trackers: Mapping[str, Ordered[Mapping[str, Result]]],
            left_out: Mapping[str, str] | None = None) -> Comparison:
  """Scores all trackers and works out what a report shows.

  Args:
    protocol: a name of `protocols.PROTOCOLS`.
    sequences: the labelled sequences; frames are not needed.
    trackers: by tracker, in the order to show, the results of each run by sequence; `pairing.Runs` where it is known
      what the runs are.
    left_out: what is wrong with further sequences of the data, by name.

  Raises:
    UserError: see `Protocol.evaluate`.
  """
  scores = {name: protocols.evaluate_runs(protocol, sequences, runs) for name, runs in trackers.items()}
  names = [s.name for s in sequences]
  weights = np.array([next(iter(scores.values())).weights[name] for name in names])

  def column(tracker: str, metric: str) -> np.ndarray:
    return np.array([scores[tracker].metrics["sequences"][name][metric] for name in names])

  first = {tracker: runs[0] for tracker, runs in trackers.items()}
  overlaps = {tracker: {s.name: analysis.overlaps(s, run[s.name]) for s in sequences} for tracker, run in first.items()}
  failures = {tracker: {name: analysis.failures(values) for name, values in of_tracker.items()}
              for tracker, of_tracker in overlaps.items()}
  recovery = {tracker: analysis.recovery([*found.values()]) for tracker, found in failures.items()}
  main, reset_based = PROTOCOLS[protocol].official[0], PROTOCOLS[protocol].reset_based
  presence = {tracker: analysis.presence(sequences, run) for tracker, run in first.items()}
  return Comparison(
      protocol=protocol, main=main, trackers=tuple(trackers), sequences=tuple(names), scores=scores,
      estimates=_estimates(scores, column, weights),
      differences=statistics.differences({tracker: column(tracker, main) for tracker in trackers}, weights),
      groups={} if reset_based else _groups(sequences, first, column, weights, overlaps),
      failures=failures, recovery={} if reset_based else recovery,
      presence={tracker: found for tracker, found in presence.items() if found}, overlaps=overlaps,
      units={tracker: _units(runs) for tracker, runs in trackers.items()},
      left_out=dict(left_out or {}))


def _units(runs: Ordered[Mapping[str, Result]]) -> tuple[Unit, ...]:
  return runs.units if isinstance(runs, pairing.Runs) else tuple(pairing.unknown(len(runs)))


def _estimates(scores: Mapping[str, Scores], column: _Column, weights: np.ndarray) -> dict[str, dict[str, Estimate]]:
  keys = [(tracker, metric) for tracker in scores for metric in scores[tracker].metrics["overall"]]
  found = statistics.estimates(np.array([column(*key) for key in keys]), weights)
  out: dict[str, dict[str, Estimate]] = {tracker: {} for tracker in scores}
  for (tracker, metric), estimate in zip(keys, found, strict=True):
    out[tracker][metric] = estimate._replace(value=scores[tracker].metrics["overall"][metric])
  return out


def _groups(sequences: Ordered[Sequence], first: Mapping[str, Mapping[str, Result]], column: _Column,
            weights: np.ndarray, overlaps: analysis.PerFrame) -> dict[str, tuple[Group, ...]]:
  errors = {tracker: {s.name: analysis.errors(s, run[s.name]) for s in sequences} for tracker, run in first.items()}
  auc = {tracker: column(tracker, "success_auc") for tracker in first}
  precision = {tracker: column(tracker, "precision_5") for tracker in first}
  groups = {
      "attribute": analysis.by_attribute(sequences, auc, precision, weights),
      "target size": analysis.by_size(sequences, overlaps, errors),
      "target speed": analysis.by_speed(sequences, overlaps, errors),
  }
  return {name: found for name, found in groups.items() if found}
