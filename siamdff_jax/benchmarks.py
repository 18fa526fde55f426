"""Speed measurements that documents quote; run by `scripts/benchmark.py`."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from siamdff_jax.models import depthwise


def median_milliseconds(function: Callable, *arguments, repeats: int) -> float:
  """The median wall time of a compiled call, after two calls that do not count."""
  times = []
  for _ in range(repeats + 2):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    times.append(1e3 * (time.perf_counter() - start))
  return float(np.median(times[2:]))


def depthwise_forms(repeats: int) -> list[dict]:
  """Both forms of the two depthwise operations, forward and gradient, at the quickstart's and the r50's shapes."""
  rng = np.random.default_rng(0)
  array = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  cases = {
      "convolution 3x3, 8x31x31x64": (depthwise.depthwise_conv, array(8, 31, 31, 64), array(3, 3, 64)),
      "correlation 7x7, 24x15x15x64": (depthwise.depthwise_correlation, array(24, 15, 15, 64), array(24, 7, 7, 64)),
      "correlation 7x7, 8x31x31x256": (depthwise.depthwise_correlation, array(8, 31, 31, 256), array(8, 7, 7, 256)),
  }
  rows = []
  for name, (operation, x, kernel) in cases.items():
    row = {"operation": name}
    for form in ("shift", "grouped"):
      forward = jax.jit(lambda x, k, form=form, operation=operation: operation(x, k, form=form))
      gradient = jax.jit(jax.grad(lambda x, k, forward=forward: (forward(x, k) ** 2).sum(), argnums=(0, 1)))
      row[f"{form}_forward_ms"] = median_milliseconds(forward, x, kernel, repeats=repeats)
      row[f"{form}_gradient_ms"] = median_milliseconds(gradient, x, kernel, repeats=repeats)
    rows.append(row)
  return rows
