"""Intervals and tests against formulas, exact enumeration and simulated data with known answers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamdff_jax.evaluation import statistics


def test_an_interval_is_near_the_normal_one():
  values = np.random.default_rng(0).normal(0.6, 0.1, 120)
  (estimate,) = statistics.estimates(values[None], np.ones(120))
  half = 1.96 * values.std() / np.sqrt(120)
  assert estimate.value == pytest.approx(values.mean())
  assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
  assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_hold_the_truth_as_often_as_they_say():
  random = np.random.default_rng(1)
  inside = 0
  for _ in range(200):
    (estimate,) = statistics.estimates(random.normal(0, 1, (1, 40)), np.ones(40))
    inside += estimate.low <= 0 <= estimate.high
  assert 0.89 <= inside / 200 <= 0.99


def test_an_interval_over_runs_is_welchs():
  """By hand: equal variances of 1 in three runs each leave 4 degrees of freedom, whose quantile is 2.776."""
  half = 2.7764 * np.sqrt(1 / 3 + 1 / 3)
  assert statistics.between_runs([1, 2, 3], [4, 6, 5]) == pytest.approx((-3, -3 - half, -3 + half), abs=1e-3)
  for a, b in (([0.5], [0.4, 0.3]), ([0.5, 0.5], [0.4, 0.4])):
    value, low, high = statistics.between_runs(a, b)
    assert value == pytest.approx(np.mean(a) - np.mean(b)) and np.isnan(low) and np.isnan(high)


def test_intervals_over_runs_hold_the_truth_as_often_as_they_say():
  random = np.random.default_rng(2)
  found = [statistics.between_runs(random.normal(1, 0.5, 4), random.normal(0, 1, 3)) for _ in range(400)]
  assert 0.92 <= np.mean([one.low <= 1 <= one.high for one in found]) <= 0.98


def test_weights_pool_frames():
  (estimate,) = statistics.estimates(np.array([[1.0, 0.0]]), np.array([3.0, 1.0]))
  assert estimate.value == 0.75
  # Drawing two of two sequences gives 0, 0.75 or 1.
  assert {estimate.low, estimate.high} <= {0.0, 0.75, 1.0}
  (same,) = statistics.estimates(np.array([[0.4, 0.4, 0.4]]), np.array([1.0, 2.0, 5.0]))
  assert same == pytest.approx((0.4, 0.4, 0.4))


def test_one_sequence_has_no_interval():
  (estimate,) = statistics.estimates(np.array([[0.3]]), np.ones(1))
  assert estimate.value == 0.3 and np.isnan(estimate.low) and np.isnan(estimate.high)
  difference = statistics.differences({"a": np.array([0.3]), "b": np.array([0.1])}, np.ones(1))["a", "b"]
  assert difference.value == pytest.approx(0.2) and np.isnan(difference.p)


def test_the_permutation_test_is_exact_for_few_sequences():
  a, b = np.array([0.9, 0.8, 0.7, 0.9, 0.5, 0.6]), np.array([0.5, 0.7, 0.6, 0.4, 0.6, 0.1])
  found = statistics.differences({"a": a, "b": b}, np.ones(6))["a", "b"]
  d = a - b
  flips = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in itertools.product((1, -1), repeat=6)]
  assert found.p == pytest.approx(np.mean(flips))
  assert found.value == pytest.approx(d.mean()) and found.low < found.value < found.high


def test_equal_trackers_do_not_differ_and_clearly_better_ones_do():
  random = np.random.default_rng(0)
  a = random.uniform(0.3, 0.8, 60)
  found = statistics.differences({"a": a, "same": a, "better": a + random.normal(0.05, 0.02, 60)}, np.ones(60))
  assert list(found) == [("a", "same"), ("a", "better"), ("same", "better")]
  assert found["a", "same"][:3] == (0, 0, 0) and found["a", "same"].p == 1
  assert found["a", "better"].p < 0.01 and found["a", "better"].high < 0


def test_planned_pairs_are_adjusted_for_themselves_only():
  scores = dict(zip("abc", np.random.default_rng(1).uniform(0, 1, (3, 8)), strict=True))
  every = statistics.differences(scores, np.ones(8))
  planned = statistics.differences(scores, np.ones(8), pairs=[("b", "a"), ("c", "b")])
  assert list(planned) == [("b", "a"), ("c", "b")]
  for (a, b), found in planned.items():
    alone = statistics.differences({a: scores[a], b: scores[b]}, np.ones(8))[a, b]
    assert found.value == pytest.approx(-every[b, a].value) and alone.p <= found.p <= min(2 * alone.p, 1) + 1e-12
  assert sorted(f.p for f in planned.values()) == sorted(statistics.holm(np.array([
      statistics.differences({a: scores[a], b: scores[b]}, np.ones(8))[a, b].p for a, b in planned])))


def test_a_share_has_wilsons_interval():
  found = statistics.share(0, 60)
  assert (found.value, found.low) == (0, 0) and found.high == pytest.approx(3.841459 / (60 + 3.841459), abs=1e-6)


def test_no_pairs():
  assert statistics.differences({"a": np.zeros(3)}, np.ones(3)) == {}


def test_holm_by_hand():
  np.testing.assert_allclose(statistics.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(statistics.holm(np.array([0.6, 0.9])), [1, 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_results_are_the_same_again_and_do_not_depend_on_what_is_compared_beside(seed):
  values = np.random.default_rng(seed).uniform(0, 1, (3, 9))
  together = statistics.estimates(values, np.ones(9))
  assert together == statistics.estimates(values, np.ones(9))
  assert together[0] == pytest.approx(statistics.estimates(values[:1], np.ones(9))[0], abs=1e-12)
