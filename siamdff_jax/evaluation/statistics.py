"""How sure a score is: bootstrap intervals over sequences, paired tests between trackers, intervals over runs.

SciPy does the work. A score is a weighted mean over sequences (all weights 1, or the number of frames that count where
a protocol pools frames). Sequences, not frames, are what is drawn anew: frames of one are far from independent.
"""

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
_RESAMPLES = 2000
_PERMUTATIONS = 4999
_BATCH_NUMBERS = 4_000_000  # Numbers held at once while resampling.
Tracker = TypeVar("Tracker", bound=Hashable)  # Whatever tells trackers apart: mostly their names.


class Estimate(NamedTuple):
  """A score and its 95 % interval; the bounds of a mean over one sequence are NaN."""

  value: float
  low: float
  high: float


class Difference(NamedTuple):
  """Score of one tracker minus that of another, with its 95 % interval.

  `p` is of the hypothesis "no difference", adjusted for the number of pairs compared (Holm); NaN with one sequence.
  """

  value: float
  low: float
  high: float
  p: float


def estimates(values: np.ndarray, weights: np.ndarray, seed: int = 0) -> list[Estimate]:
  """Weighted means over sequences with percentile bootstrap intervals (Efron).

  Args:
    values: [K, S], K scores of S sequences.
    weights: [S], positive.
    seed: of the resampling; the same resamples serve all K.

  Returns:
    K estimates.
  """
  values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
  means = _weighted_mean(values, weights)
  if values.shape[1] < 2:
    return [Estimate(float(mean), np.nan, np.nan) for mean in means]
  interval = stats.bootstrap(
      (values, np.broadcast_to(weights, values.shape)), _weighted_mean, paired=True, vectorized=True, axis=-1,
      method="percentile", confidence_level=CONFIDENCE, n_resamples=_RESAMPLES,
      batch=max(1, _BATCH_NUMBERS // values.size), rng=np.random.default_rng(seed)).confidence_interval
  return [Estimate(*map(float, row)) for row in zip(means, interval.low, interval.high, strict=True)]


def share(count: int, total: int) -> Estimate:
  """`count` of `total` sequences, with Wilson's (1927) interval: unlike a bootstrap's it has a width at 0 and at 1."""
  interval = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
  return Estimate(count / total, float(interval.low), float(interval.high))


def differences(scores: Mapping[Tracker, np.ndarray], weights: np.ndarray, seed: int = 0,
                pairs: Sequence[tuple[Tracker, Tracker]] | None = None) -> dict[tuple[Tracker, Tracker], Difference]:
  """Compares trackers on the same sequences, every two of them or the pairs that were planned.

  Interval: bootstrap of the mean difference. p: permutation test of it (the sign of each sequence's difference is
  flipped at random; all flips where there are few), two-sided, then Holm's adjustment over all pairs.

  Args:
    scores: by tracker, [S] scores of the same S sequences.
    weights: [S], positive.
    seed: of the resampling.
    pairs: which to compare; default every pair, a before b in `scores`.

  Returns:
    {(a, b): a - b} for all of them.
  """
  pairs = list(itertools.combinations(scores, 2)) if pairs is None else pairs
  if not pairs:
    return {}
  values = np.array([np.asarray(scores[a], np.float64) - scores[b] for a, b in pairs])
  found = estimates(values, weights, seed)
  if values.shape[1] < 2:
    p = np.full(len(pairs), np.nan)
  else:
    p = holm(stats.permutation_test(
        (values * weights,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True, axis=-1,
        n_resamples=_PERMUTATIONS, batch=max(1, _BATCH_NUMBERS // values.size),
        rng=np.random.default_rng(seed)).pvalue)
  return {pair: Difference(*estimate, float(q)) for pair, estimate, q in zip(pairs, found, p, strict=True)}


def between_runs(a: Sequence[float], b: Sequence[float]) -> Estimate:
  """Mean of `a` minus mean of `b`, each with one score per run, and Welch's (1947) interval.

  Where a run is a training with a seed of its own, it tells one way of training from another; the interval of
  `differences` tells one trained network from another. Bounds are NaN with fewer than two runs of either, and where
  no run differs from the others of its tracker. For runs that share nothing; see `between_paired_runs`.
  """
  value = float(np.mean(a) - np.mean(b))
  if min(len(a), len(b)) < 2 or not np.var(a) + np.var(b):
    return Estimate(value, np.nan, np.nan)
  interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
  return Estimate(value, float(interval.low), float(interval.high))


def between_paired_runs(a: Sequence[float], b: Sequence[float]) -> Estimate:
  """Mean of `a` minus mean of `b`, where run i of both has the same seed, and Student's (1908) interval: that of the
  mean of the differences. Bounds are NaN with fewer than two runs; equal differences give an interval without width.
  """
  pairs = np.subtract(a, b, dtype=np.float64)
  value, count = float(pairs.mean()), len(pairs)
  if count < 2:
    return Estimate(value, np.nan, np.nan)
  half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * pairs.std(ddof=1) / np.sqrt(count))
  return Estimate(value, value - half, value + half)


def holm(p: np.ndarray) -> np.ndarray:
  """Holm's (1979) step-down adjustment: [K] -> [K], so that p < a keeps the chance of any false claim below a."""
  p = np.asarray(p, np.float64)
  order = np.argsort(p, kind="stable")
  adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
  out = np.empty_like(adjusted)
  out[order] = np.minimum(adjusted, 1)
  return out


def _weighted_mean(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
  return (values * weights).sum(axis=axis) / np.sum(weights, axis=axis)
