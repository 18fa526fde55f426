"""Depthwise convolution, depthwise correlation and the stem's patches, in the form that is fast on each backend.

XLA:CPU runs grouped convolutions slower than the same sum written as shifted multiply-adds, and their gradients slower
still (`scripts/benchmark.py depthwise`, numbers in docs/decisions.md). So every depthwise operation of the
network is here, in two forms that a test holds equal:

* "shift": a sum over kernel taps of shifted slices times weights. Exports with a symbolic batch size.
* "grouped": `lax.conv_general_dilated` with feature groups, for TPUs. (On a GPU XLA tries out so many algorithms for
  them that a step had not compiled after 100 s; docs/performance.md.)
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Form = Literal["shift", "grouped"]
_NHWC = ("NHWC", "HWIO", "NHWC")


def default_form() -> Form:
  """The form that the default backend takes."""
  return "grouped" if jax.default_backend() == "tpu" else "shift"


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1, padding: str = "SAME",
                   form: Form | None = None) -> jax.Array:
  """Convolves every channel with a kernel of its own.

  Args:
    x: [B, H, W, C].
    kernel: [k, k, C], k odd.
    stride: step between output positions.
    dilation: step between kernel taps.
    padding: "SAME" pads dilation*(k-1)/2 zeros on every side (symmetric also when strided), "VALID" none.
    form: None takes `default_form()`.

  Returns:
    [B, H', W', C], the dtype of `x`.
  """
  k = kernel.shape[0]
  pad = dilation * (k - 1) // 2 if padding == "SAME" else 0
  kernel = kernel.astype(x.dtype)
  if (form or default_form()) == "grouped":
    return lax.conv_general_dilated(
        x, kernel[:, :, None, :], (stride, stride), [(pad, pad)] * 2, rhs_dilation=(dilation, dilation),
        dimension_numbers=_NHWC, feature_group_count=x.shape[-1])
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  return _shifted(x, kernel[None], stride, dilation)


def depthwise_correlation(search: jax.Array, template: jax.Array, *, form: Form | None = None) -> jax.Array:
  """Correlates each example's search features with its own template, channel by channel, `VALID`.

  Args:
    search: [B, H, W, C].
    template: [B, h, w, C].
    form: None takes `default_form()`.

  Returns:
    [B, H-h+1, W-w+1, C], the dtype of `search`.
  """
  b, height, width, c = search.shape
  _, h, w, _ = template.shape
  template = template.astype(search.dtype)
  if (form or default_form()) == "grouped":
    # Batch and channel together become the groups: [1, H, W, B*C] with [h, w, 1, B*C].
    lhs = search.transpose(1, 2, 0, 3).reshape(1, height, width, b * c)
    rhs = template.transpose(1, 2, 0, 3).reshape(h, w, 1, b * c)
    out = lax.conv_general_dilated(lhs, rhs, (1, 1), "VALID", dimension_numbers=_NHWC, feature_group_count=b * c)
    return out.reshape(height - h + 1, width - w + 1, b, c).transpose(2, 0, 1, 3)
  return _shifted(search, template, 1, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  """The "shift" form of both, `VALID`: x [B, H, W, C], kernel [B or 1, h, w, C] -> [B, H', W', C].

  The gradient is written by hand. JAX's own is a sum of one padded array per tap, which XLA:CPU fuses into a single
  loop that takes LLVM minutes to compile.
  """
  _, height, width, _ = x.shape
  _, h, w, _ = kernel.shape
  rows, cols = height - dilation * (h - 1), width - dilation * (w - 1)
  out = jnp.zeros((), x.dtype)
  for i in range(h):
    for j in range(w):
      y0, x0 = i * dilation, j * dilation
      out += x[:, y0:y0 + rows:stride, x0:x0 + cols:stride] * kernel[:, i:i + 1, j:j + 1]
  return out


def _shifted_forward(x: jax.Array, kernel: jax.Array, stride: int, dilation: int
                     ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _shifted(x, kernel, stride, dilation), (x, kernel)


def _shifted_backward(stride: int, dilation: int, residuals: tuple[jax.Array, jax.Array], g: jax.Array
                      ) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  taps = kernel.shape[1:3]
  # For x: the cotangent, spread by the stride and padded by the kernel's reach, under the turned kernel.
  padding = [(0, 0, 0)]
  for axis in (1, 2):
    reach = dilation * (taps[axis - 1] - 1)
    covered = (g.shape[axis] - 1) * stride + 1 + reach
    padding.append((reach, reach + x.shape[axis] - covered, stride - 1))
  spread = lax.pad(g, jnp.zeros((), g.dtype), [*padding, (0, 0, 0)])
  x_gradient = _shifted(spread, kernel[:, ::-1, ::-1], 1, dilation)

  span = [(n - 1) * stride + 1 for n in g.shape[1:3]]

  def one_tap(tap: jax.Array) -> jax.Array:  # The cotangent times what this tap saw.
    seen = lax.dynamic_slice_in_dim(x, tap[0] * dilation, span[0], axis=1)
    seen = lax.dynamic_slice_in_dim(seen, tap[1] * dilation, span[1], axis=2)
    product = seen[:, ::stride, ::stride] * g
    return product.sum((1, 2)) if kernel.shape[0] > 1 else product.sum((0, 1, 2))[None]

  grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, taps), indexing="ij"), -1).reshape(-1, 2)
  per_tap = lax.map(one_tap, grid)  # [h*w, B or 1, C]
  return x_gradient, per_tap.transpose(1, 0, 2).reshape(kernel.shape)


_shifted.defvjp(_shifted_forward, _shifted_backward)


def patches(x: jax.Array, size: int, stride: int) -> jax.Array:
  """Gathers size x size patches, `VALID`: [B, H, W, C] -> [B, H', W', size*size*C].

  A convolution with one input channel is a matrix product on these; XLA:CPU's gradient of the direct form is
  dozens of times slower.
  """
  rows, cols = x.shape[1] - size + 1, x.shape[2] - size + 1
  taps = [x[:, i:i + rows:stride, j:j + cols:stride] for i in range(size) for j in range(size)]
  return jnp.concatenate(taps, axis=-1)
