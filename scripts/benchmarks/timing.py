"""Wall times of competing calls, measured in turns."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Name = TypeVar("Name", bound=Hashable)


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
      start = time.perf_counter()
      jax.block_until_ready(call())
      if turn >= 0:
        times[name].append(time.perf_counter() - start)
  return times


def median(times: Sequence[float]) -> float:
  return float(np.median(times))


def spread(times: Sequence[float], scale: float = 1e3) -> str:
  """"lower-upper" quartile in milliseconds (`scale` per second), as a table cell."""
  lower, upper = np.quantile(times, (0.25, 0.75)) * scale
  return f"{lower:.4g}-{upper:.4g}"
