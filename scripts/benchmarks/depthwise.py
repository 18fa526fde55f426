"""Both forms of the two depthwise operations, forward and gradient, at the quickstart's and the r50's shapes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from siamdff_jax.models import depthwise

CASES = {  # (operation, shape of x, shape of the kernel)
    "convolution 3x3, 8x31x31x64": (depthwise.depthwise_conv, (8, 31, 31, 64), (3, 3, 64)),
    "correlation 7x7, 24x15x15x64": (depthwise.depthwise_correlation, (24, 15, 15, 64), (24, 7, 7, 64)),
    "correlation 7x7, 8x31x31x256": (depthwise.depthwise_correlation, (8, 31, 31, 256), (8, 7, 7, 256)),
}


def rows(repeats: int, cases: dict = CASES) -> Iterator[dict]:
  """Milliseconds of a call; the gradient is by both arguments."""
  rng = np.random.default_rng(0)
  for name, (operation, x_shape, kernel_shape) in cases.items():
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in (x_shape, kernel_shape))
    calls = {}
    for form in ("shift", "grouped"):
      forward = jax.jit(lambda x, k, form=form, operation=operation: operation(x, k, form=form))
      gradient = jax.jit(jax.grad(lambda x, k, forward=forward: (forward(x, k) ** 2).sum(), argnums=(0, 1)))
      for kind, function in (("forward", forward), ("gradient", gradient)):
        calls[f"{form}, {kind} (ms)"] = lambda function=function, x=x, kernel=kernel: function(x, kernel)
    times = timing.interleaved(calls, repeats)
    yield {"operation": name, **{key: 1e3 * timing.median(value) for key, value in times.items()}, "seconds": times}
