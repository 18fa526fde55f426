"""Wall times of competing calls, measured in turns."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Name = TypeVar("Name", bound=Hashable)

_SECONDS_PER_TIMING = 0.5  # Short calls are timed many at a time, so that dispatching them is hidden as in a loop.
_MOST_PER_TIMING = 50


def interleaved(calls: Mapping[Name, Callable[[], Any]], repeats: int, warmup: int = 2) -> dict[Name, list[float]]:
  """Seconds of every call, round by round (A, B, C, A, B, C), so that a noisy neighbour disturbs all of them alike.

  Args:
    calls: by name; what a call returns is waited for (`jax.block_until_ready`; anything but arrays is let through).
    repeats: rounds that count.
    warmup: rounds before them that do not: compilation, caches, the clock of the processor.

  Returns:
    {name: `repeats` seconds, in order}.
  """
  times: dict[Name, list[float]] = {name: [] for name in calls}
  for turn in range(-warmup, repeats):
    for name, call in calls.items():
      seconds = once(call)
      if turn >= 0:
        times[name].append(seconds)
  return times


def once(call: Callable[[], Any]) -> float:
  """Seconds of one call; what it returns is waited for."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def calls_per_timing(call: Callable[[], Any]) -> int:
  """How many calls last about half a second, at most 50; runs it twice."""
  once(call)
  return int(max(1, min(_MOST_PER_TIMING, round(_SECONDS_PER_TIMING / once(call)))))


def repeated(call: Callable[[], Any], count: int) -> Callable[[], Any]:
  """`count` calls as one; a device that takes them in order is waited for once, by the last."""

  def run() -> Any:
    for _ in range(count):
      found = call()
    return found

  return run


def median(times: Sequence[float]) -> float:
  return float(np.median(times))


def spread(times: Sequence[float], scale: float = 1e3) -> str:
  """"lower-upper" quartile in milliseconds (`scale` per second), as a table cell."""
  lower, upper = np.quantile(times, (0.25, 0.75)) * scale
  return f"{lower:.4g}-{upper:.4g}"
