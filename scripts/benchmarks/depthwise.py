"""The forms of the two depthwise operations, forward and gradient, at the quickstart's and the r50's shapes."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from siamdff_jax.models import depthwise

FORMS = ("shift", "rows", "grouped")
SHAPES = {  # (operation, shape of x, shape of the kernel); the first number of x is the batch.
    "convolution 3x3, 31x31x64": (depthwise.depthwise_conv, (8, 31, 31, 64), (3, 3, 64)),
    "correlation 7x7, 15x15x64": (depthwise.depthwise_correlation, (24, 15, 15, 64), (24, 7, 7, 64)),
    "correlation 7x7, 31x31x256": (depthwise.depthwise_correlation, (8, 31, 31, 256), (8, 7, 7, 256)),
}


def rows(repeats: int, forms: Sequence[str] = FORMS, batch: int | None = None, shapes: Mapping = SHAPES
         ) -> Iterator[dict]:
  """Milliseconds of a call; the gradient is by both arguments. In bfloat16 on accelerators, in float32 on a CPU.

  Args:
    repeats: timings of each.
    forms: of `FORMS`, measured in turns.
    batch: None: that of the shape.
    shapes: like `SHAPES`.
  """
  on_cpu, rng = jax.default_backend() == "cpu", np.random.default_rng(0)
  dtype = jnp.float32 if on_cpu else jnp.bfloat16
  for name, (operation, x_shape, kernel_shape) in shapes.items():
    if batch:
      x_shape, kernel_shape = ((batch, *shape[1:]) if len(shape) == 4 else shape for shape in (x_shape, kernel_shape))
    x, kernel = (jnp.asarray(rng.normal(size=shape), dtype) for shape in (x_shape, kernel_shape))
    for kind in ("forward", "gradient"):
      calls, counts = {}, {}
      for form in forms:
        function = jax.jit(_forward(operation, form) if kind == "forward" else _gradient(operation, form))
        call = functools.partial(function, x, kernel)
        counts[form] = 1 if on_cpu else timing.calls_per_timing(call)  # A CPU may run several of them at once.
        calls[form] = timing.repeated(call, counts[form])
      times = timing.interleaved(calls, repeats, warmup=1)
      yield {"operation": name, "of": kind, "batch": x_shape[0], "dtype": jnp.dtype(dtype).name,
             **{f"{form} (ms)": 1e3 * timing.median(times[form]) / counts[form] for form in forms},
             "seconds": times, "calls_per_timing": counts}


def _forward(operation: Callable[..., jax.Array], form: str) -> Callable[..., jax.Array]:
  return lambda x, kernel: operation(x, kernel, form=form)


def _gradient(operation: Callable[..., jax.Array], form: str) -> Callable[..., jax.Array]:
  return jax.grad(lambda x, kernel: (operation(x, kernel, form=form).astype(jnp.float32) ** 2).sum(), argnums=(0, 1))
