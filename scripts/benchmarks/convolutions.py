"""Where XLA:CPU's convolutions are slow and what helps: layout, form, dtype, flags; on the networks' shapes."""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from benchmarks import isolated, timing
from siamdff_jax.models import depthwise
from siamdff_jax.models.layers import max_pool


@dataclasses.dataclass(frozen=True)
class Shape:
  """A convolution [B, side, side, inputs] -> outputs; `side` is padded already where stride is 2.

  Attributes:
    kind: "dense" (same padding, or none where strided), "depthwise" (3x3), "correlation" (each example its own kernel).
  """

  side: int
  inputs: int
  outputs: int
  kernel: int
  stride: int = 1
  dilation: int = 1
  kind: str = "dense"

  @property
  def pad(self) -> int:
    return self.dilation * (self.kernel - 1) // 2 if self.stride == 1 and self.kind != "correlation" else 0

  @property
  def out_side(self) -> int:
    return (self.side + 2 * self.pad - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

  def gflop(self, batch: int) -> float:
    """Of the forward pass, a multiply-add as 2, taps on the padding included."""
    fan_in = self.inputs if self.kind == "dense" else 1
    return 2e-9 * batch * self.out_side**2 * self.outputs * fan_in * self.kernel**2


SHAPES = {
    "stem 7x7/2 (r50, r18)": Shape(259, 1, 64, 7, stride=2),
    "3x3 at 63 (r50, r18 stage 1)": Shape(63, 64, 64, 3),
    "3x3/2 (r50 stage 2)": Shape(63, 128, 128, 3, stride=2),
    "1x1 1024 to 256 (r50 stage 3)": Shape(31, 1024, 256, 1),
    "1x1 256 to 1024 (r50 stage 3)": Shape(31, 256, 1024, 1),
    "3x3 dilated 2 (r50, r18 stage 3)": Shape(31, 256, 256, 3, dilation=2),
    "3x3 dilated 4 (r50, r18 stage 4)": Shape(31, 512, 512, 3, dilation=4),
    "3x3 at 25 (head)": Shape(25, 256, 256, 3),
    "1x1 48 to 192 (lite stage 3)": Shape(31, 48, 192, 1),
    "depthwise 3x3 dilated 2 (lite stage 3)": Shape(31, 192, 192, 3, dilation=2, kind="depthwise"),
    "correlation 7x7 (r50, r18)": Shape(31, 256, 256, 7, kind="correlation"),
}

PLAIN = ("NHWC (XLA)", "NHWC (XLA, grouped)")

# Flags of XLA that could matter on a CPU; those that this jaxlib does not have are reported as such.
FLAGS = (
    "", "--xla_cpu_use_onednn=true", "--xla_cpu_experimental_onednn_custom_call=true", "--xla_cpu_use_xnnpack=true",
    "--xla_cpu_experimental_xnn_graph_fusion_mode=XNN_GRAPH_FUSION_MODE_GREEDY", "--xla_cpu_use_thunk_runtime=false",
    "--xla_cpu_multi_thread_eigen=false", "--xla_cpu_enable_fast_math=true", "--xla_cpu_prefer_vector_width=512",
    "--xla_cpu_use_fusion_emitters=false", "--xla_cpu_enable_concurrency_optimized_scheduler=true",
)


def _library(shape: Shape, numbers: tuple[str, str, str]) -> Callable:
  """XLA's convolution with the arrays in the layout that `numbers` names."""
  return lambda x, w: lax.conv_general_dilated(
      x, w, (shape.stride,) * 2, [(shape.pad,) * 2] * 2, rhs_dilation=(shape.dilation,) * 2, dimension_numbers=numbers,
      feature_group_count=shape.inputs if shape.kind == "depthwise" else 1)


def _taps(shape: Shape, x: jax.Array) -> list[jax.Array]:
  """What each tap of the kernel sees, [B, H', W', C] each, row by row."""
  x = jnp.pad(x, ((0, 0), (shape.pad,) * 2, (shape.pad,) * 2, (0, 0)))
  span = (shape.out_side - 1) * shape.stride + 1
  at = [i * shape.dilation for i in range(shape.kernel)]
  return [x[:, i:i + span:shape.stride, j:j + span:shape.stride] for i in at for j in at]


def _shifted_products(shape: Shape, x: jax.Array, w: jax.Array) -> jax.Array:
  """One matrix product per tap, added up."""
  w = w.reshape(shape.kernel**2, shape.inputs, shape.outputs)
  return sum(tap @ w[i] for i, tap in enumerate(_taps(shape, x)))


def _im2col(shape: Shape, x: jax.Array, w: jax.Array) -> jax.Array:
  """One matrix product on all taps beside each other."""
  return jnp.concatenate(_taps(shape, x), -1) @ w.reshape(-1, shape.outputs)


def _grouped_correlation(x: jax.Array, w: jax.Array) -> jax.Array:
  return depthwise.depthwise_correlation(x, w, form="grouped")


def forms(shape: Shape) -> dict[str, tuple[Callable, str, str]]:
  """{name: (function of x and w, axes of x, axes of w)}; the axes are letters of "NHWC" and "HWIO" in their order.

  For depthwise kinds "I" is left out, and correlations have "N" in place of it.
  """
  if shape.kind == "correlation":
    return {"NHWC (XLA, grouped)": (_grouped_correlation, "NHWC", "NHWO"),
            "multiply-adds (ours)": (depthwise.depthwise_correlation, "NHWC", "NHWO")}
  found = {"NHWC (XLA)": (_library(shape, ("NHWC", "HWIO", "NHWC")), "NHWC", "HWIO"),
           "NCHW (XLA)": (_library(shape, ("NCHW", "OIHW", "NCHW")), "NCHW", "OIHW"),
           "CHWN (XLA)": (_library(shape, ("CHWN", "IHWO", "CHWN")), "CHWN", "IHWO")}
  if shape.kind == "depthwise":
    ours = functools.partial(depthwise.depthwise_conv, dilation=shape.dilation)
    return found | {"multiply-adds (ours)": (ours, "NHWC", "HWO")}
  if shape.kernel == 1:
    return found | {"matrix product": (lambda x, w: x @ w.reshape(shape.inputs, shape.outputs), "NHWC", "HWIO")}
  return found | {"im2col": (lambda x, w: _im2col(shape, x, w), "NHWC", "HWIO"),
                  "product per tap": (lambda x, w: _shifted_products(shape, x, w), "NHWC", "HWIO")}


def arrays(shape: Shape, batch: int, x_axes: str, w_axes: str) -> tuple[np.ndarray, np.ndarray]:
  """Equal random numbers for every form, in its layout: float32, such that outputs are about 1."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(batch, shape.side, shape.side, shape.inputs))
  fan_in = shape.kernel**2 * (shape.inputs if shape.kind == "dense" else 1)
  sides = (shape.kernel, shape.kernel)
  full = {"dense": (*sides, shape.inputs, shape.outputs), "depthwise": (*sides, 1, shape.outputs),
          "correlation": (*sides, batch, shape.outputs)}[shape.kind]
  w = rng.normal(size=full) / np.sqrt(fan_in)
  names = "HWNO" if shape.kind == "correlation" else "HWIO"
  if "I" not in w_axes and shape.kind == "depthwise":
    w, names = w[:, :, 0], "HWO"
  x = x.transpose(["NHWC".index(axis) for axis in x_axes])
  return x.astype(np.float32), w.transpose([names.index(axis) for axis in w_axes]).astype(np.float32)


def calls(shape: Shape, batch: int, dtype: str, only: Iterable[str] | None = None
          ) -> dict[tuple[str, str], Callable]:
  """{(form, "forward" or "gradient"): call}; the gradient is by both arguments for a given cotangent, 2 x forward."""
  found = {}
  for name, (function, x_axes, w_axes) in forms(shape).items():
    if only is not None and name not in only:
      continue
    x, w = (jnp.asarray(array, dtype) for array in arrays(shape, batch, x_axes, w_axes))
    cotangent = jnp.ones_like(jax.eval_shape(function, x, w))
    forward = jax.jit(function)
    gradient = jax.jit(lambda x, w, g, function=function: jax.vjp(function, x, w)[1](g))
    found[name, "forward"] = lambda forward=forward, x=x, w=w: forward(x, w)
    found[name, "gradient"] = lambda gradient=gradient, x=x, w=w, g=cotangent: gradient(x, w, g)
  return found


def rows(batch: int, repeats: int, names: Iterable[str] = tuple(SHAPES),
         dtypes: Iterable[str] = ("float32", "bfloat16"), only: Iterable[str] | None = None) -> Iterator[dict]:
  """Milliseconds and GFLOP/s of every form of every shape, measured in turns.

  Args:
    batch: examples.
    repeats: rounds.
    names: of `SHAPES`.
    dtypes: of arrays and products.
    only: forms to measure, see `forms`; None takes all.
  """
  for name in names:
    shape = SHAPES[name]
    for dtype in dtypes:
      todo = calls(shape, batch, dtype, only)
      times = timing.interleaved(todo, repeats)
      for form in dict.fromkeys(form for form, _ in todo):
        forward, gradient = (timing.median(times[form, kind]) for kind in ("forward", "gradient"))
        yield {"convolution": name, "batch": batch, "dtype": dtype, "form": form, "forward (ms)": 1e3 * forward,
               "forward (GFLOP/s)": shape.gflop(batch) / forward, "gradient (ms)": 1e3 * gradient,
               "gradient (GFLOP/s)": 2 * shape.gflop(batch) / gradient,
               "seconds": {kind: times[form, kind] for kind in ("forward", "gradient")}}


def flag_rows(batch: int, repeats: int, names: Iterable[str] = tuple(SHAPES), dtypes: Iterable[str] = ("float32",),
              flags: Iterable[str] = FLAGS) -> Iterator[dict]:
  """The plain form (XLA's, NHWC) of every shape under each flag, in a process of its own per flag.

  One row per flag and shape. Processes follow each other, so compare with the row without a flag on a quiet machine
  only. A flag that this jaxlib does not know, or that makes it fail, gets one row that says so.
  """
  for flag in flags:
    blank = {"flag": flag or "(none)", "convolution": "", "dtype": "", "forward (ms)": None, "gradient (ms)": None}
    arguments = {"batch": batch, "repeats": repeats, "names": list(names), "dtypes": list(dtypes),
                 "only": PLAIN}
    try:
      variables = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip(), "JAX_PLATFORMS": "cpu"}
      for row in isolated.run("convolutions", arguments, variables):
        yield blank | {key: row[key] for key in (*list(blank)[1:], "seconds")} | {"note": ""}
    except isolated.Failed as error:
      yield blank | {"note": str(error)[-80:]}


def pooling_rows(repeats: int, shapes: Iterable[tuple] = ((2, 127, 127, 64), (32, 63, 63, 16))) -> Iterator[dict]:
  """Milliseconds of max pooling (3x3, stride 2) and its gradient, by Flax and by slices; r50's shape, quickstart's."""
  forms = {"flax": lambda x: nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID"), "slices": max_pool}
  for shape in shapes:
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    todo = {}
    for name, form in forms.items():
      gradient = jax.grad(lambda x, form=form: (form(x) ** 2).sum())
      for kind, function in (("forward", jax.jit(form)), ("gradient", jax.jit(gradient))):
        todo[f"{name}, {kind} (ms)"] = lambda function=function, x=x: function(x)
    times = timing.interleaved(todo, repeats)
    yield {"max pooling of": "x".join(map(str, shape)), **{key: 1e3 * timing.median(t) for key, t in times.items()},
           "seconds": times}


if __name__ == "__main__":
  print(json.dumps(list(rows(**json.loads(sys.argv[1])))))
