"""Depthwise convolution and depthwise correlation, in the form that is fast on each kind of device.

XLA:CPU runs grouped convolutions slower than the same sum written as shifted multiply-adds, XLA:GPU takes minutes to
compile them, and TPUs have units for them (`scripts/benchmark.py depthwise` and `tpu`, numbers in docs/performance.md).
So every depthwise operation of the network is here, in forms that a test holds equal:

* "shift": a sum over kernel taps of shifted slices times weights. For GPUs and exported files: it takes any batch size.
* "rows": the same; a correlation one output row after the other. For CPUs, which keep a row's input in their caches.
* "grouped": `lax.conv_general_dilated` with feature groups, for TPUs.

The gradients are written by hand. JAX's own of "shift" is a sum of one padded array per tap, which XLA:CPU fuses into a
single loop that takes LLVM minutes to compile; that of a grouped correlation by its template, a convolution with the
whole search map as its window, takes the TPU's compiler minutes.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from siamdff_jax.models import devices

Form = Literal["shift", "rows", "grouped"]
FORMS: dict[str, Form] = {"cpu": "rows", "gpu": "shift", "tpu": "grouped"}  # By kind of device.
_NHWC = ("NHWC", "HWIO", "NHWC")


def default_form() -> Form:
  """The form for the devices that are traced for."""
  return FORMS[devices.kind()]


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
  pad = dilation * (kernel.shape[0] - 1) // 2 if padding == "SAME" else 0
  x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))))
  return _windowed(x, kernel.astype(x.dtype)[None], stride, dilation, True, form or default_form())


def depthwise_correlation(search: jax.Array, template: jax.Array, *, form: Form | None = None) -> jax.Array:
  """Correlates each example's search features with its own template, channel by channel, `VALID`.

  Args:
    search: [B, H, W, C].
    template: [B, h, w, C].
    form: None takes `default_form()`.

  Returns:
    [B, H-h+1, W-w+1, C], the dtype of `search`.
  """
  # What it is computed from is finished first: XLA would compute it once more for every tap.
  search, template = lax.optimization_barrier((search, template.astype(search.dtype)))
  return _windowed(search, template, 1, 1, False, form or default_form())


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _windowed(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, shared: bool, form: Form) -> jax.Array:
  """Both operations, `VALID`: x [B, H, W, C], kernel [B or (shared) 1, h, w, C] -> [B, H', W', C]."""
  if form == "grouped":
    return _grouped(x, kernel, stride, dilation, shared)
  if form == "rows" and not shared:  # Small kernels are as fast without.
    return _by_rows(x, kernel, stride, dilation)
  return _shifted(x, kernel, stride, dilation)


def _shifted(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
  (_, h, w, _), size = kernel.shape, _output_size(x, kernel, 1, dilation)
  out = jnp.zeros((), x.dtype)
  for i in range(h):
    for j in range(w):
      top, left = i * dilation, j * dilation
      out += x[:, top:top + size[0]:stride, left:left + size[1]:stride] * kernel[:, i:i + 1, j:j + 1]
  return out


def _by_rows(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:

  def row(y: jax.Array) -> jax.Array:
    seen = lax.dynamic_slice_in_dim(x, y * stride, dilation * (kernel.shape[1] - 1) + 1, axis=1)
    return _shifted(seen, kernel, stride, dilation)[:, 0]

  return jnp.moveaxis(lax.map(row, jnp.arange(_output_size(x, kernel, stride, dilation)[0])), 0, 1)


def _grouped(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, shared: bool) -> jax.Array:
  (b, height, width, c), (_, h, w, _) = x.shape, kernel.shape
  if not shared:  # Batch and channel together become the groups: [1, H, W, B*C] with [h, w, 1, B*C].
    x = x.transpose(1, 2, 0, 3).reshape(1, height, width, b * c)
    kernel = kernel.transpose(1, 2, 0, 3).reshape(1, h, w, b * c)
  out = lax.conv_general_dilated(x, kernel.swapaxes(0, 2).swapaxes(0, 1), (stride, stride), "VALID",
                                 rhs_dilation=(dilation, dilation), dimension_numbers=_NHWC,
                                 feature_group_count=x.shape[-1])
  return out if shared else out.reshape(*out.shape[1:3], b, c).transpose(2, 0, 1, 3)


def _output_size(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> list[int]:
  return [(n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[1:3], kernel.shape[1:3], strict=True)]


def _forward(x: jax.Array, kernel: jax.Array, *options: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _windowed(x, kernel, *options), (x, kernel)


def _backward(stride: int, dilation: int, shared: bool, form: Form, residuals: tuple[jax.Array, jax.Array],
              g: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = residuals
  # For x: the cotangent, spread by the stride and padded by the kernel's reach, under the turned kernel.
  padding = [(0, 0, 0)]
  for axis in (1, 2):
    reach = dilation * (kernel.shape[axis] - 1)
    covered = (g.shape[axis] - 1) * stride + 1 + reach
    padding.append((reach, reach + x.shape[axis] - covered, stride - 1))
  spread = lax.pad(g, jnp.zeros((), g.dtype), [*padding, (0, 0, 0)])
  x_gradient = _windowed(spread, kernel[:, ::-1, ::-1], 1, dilation, shared, form)
  if shared and form == "grouped":
    _, pull_back = jax.vjp(lambda kernel: _grouped(x, kernel, stride, dilation, shared), kernel)
    return x_gradient, pull_back(g)[0]
  by_kernel = _gradient_by_rows if form == "rows" else _gradient_by_taps
  gradient = by_kernel(x, g, kernel.shape[1], kernel.shape[2], stride, dilation)  # float32 [B, h, w, C]
  return x_gradient, (gradient.sum(0, keepdims=True) if shared else gradient).astype(x.dtype)


def _gradient_by_rows(x: jax.Array, g: jax.Array, h: int, w: int, stride: int, dilation: int) -> jax.Array:
  """The kernel's gradient: the cotangent's rows, one after the other, times what each tap sees there."""

  def add_row(y: jax.Array, total: jax.Array) -> jax.Array:
    row = lax.dynamic_slice_in_dim(g, y, 1, axis=1).astype(jnp.float32)
    seen = lax.dynamic_slice_in_dim(x, y * stride, dilation * (h - 1) + 1, axis=1)[:, ::dilation].astype(jnp.float32)
    for k in range(g.shape[2]):
      total += seen[:, :, k * stride:k * stride + dilation * (w - 1) + 1:dilation] * row[:, :, k:k + 1]
    return total

  return lax.fori_loop(0, g.shape[1], add_row, jnp.zeros((x.shape[0], h, w, x.shape[-1]), jnp.float32))


def _gradient_by_taps(x: jax.Array, g: jax.Array, h: int, w: int, stride: int, dilation: int) -> jax.Array:
  """The same, the kernel's rows one after the other: the sum of the cotangent times what each tap of a row sees."""
  rows, cols = (stride * (n - 1) + 1 for n in g.shape[1:3])

  def one_row(i: jax.Array) -> jax.Array:
    seen = lax.dynamic_slice_in_dim(x, i * dilation, rows, axis=1)[:, ::stride]
    taps = [seen[:, :, j * dilation:j * dilation + cols:stride] * g for j in range(w)]
    return jnp.stack([tap.sum((1, 2), dtype=jnp.float32) for tap in taps], 1)  # [B, w, C]

  return jnp.moveaxis(lax.map(one_row, jnp.arange(h)), 0, 1)


_windowed.defvjp(_forward, _backward)
