"""What everything else is made of: convolutions as modules, dense layers, pooling, a safe maximum."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.models import depthwise, devices
from siamdff_jax.models.norm import Norm


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def peak(x: jax.Array, axis: int) -> jax.Array:
  """`x.max(axis)` with a gradient that is always finite: it goes to the first of the largest entries.

  That of `jnp.max` is shared by the entries that equal the maximum. Where the compiler computes x a second time with
  another rounding (fusions, bfloat16 with excess precision) none does, and the gradient is 0/0.
  """
  return x.max(axis)


@peak.defjvp
def _peak_jvp(axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  x, tangent = jax.lax.optimization_barrier(primals[0]), tangents[0]
  axis %= x.ndim
  top = x.max(axis, keepdims=True)
  place = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)
  # Two plain reductions: XLA:CPU's argmax is a scalar loop.
  first = jnp.where(x == top, place, x.shape[axis]).min(axis, keepdims=True)
  return top.squeeze(axis), jnp.where(place == first, tangent, 0).sum(axis)


def max_pool(x: jax.Array) -> jax.Array:
  """The maximum over 3x3 windows, stride 2, no padding: [B, H, W, C] -> [B, (H-1)//2, (W-1)//2, C].

  TPUs have operations of their own for value and gradient. For others both are written out here, equal to those: the
  gradient goes to the first of the largest entries. XLA:CPU computes it by a scalar loop (docs/performance.md).
  """
  if devices.kind() == "tpu":
    return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")
  return _max_pool(x)


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
  """By strided slices, one axis after the other."""
  for axis in (1, 2):
    size = 2 * ((x.shape[axis] - 3) // 2) + 1
    a, b, c = (jax.lax.slice_in_dim(x, start, start + size, 2, axis) for start in range(3))
    x = jnp.maximum(jnp.maximum(a, b), c)
  return x


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, Any]:
  top = _max_pool(x)
  rows, cols = (2 * n - 1 for n in top.shape[1:3])
  winner = jnp.zeros(top.shape, jnp.int8)  # Of the window's 9 entries.
  for k in reversed(range(9)):
    winner = jnp.where(x[:, k // 3:k // 3 + rows:2, k % 3:k % 3 + cols:2] == top, jnp.int8(k), winner)
  return top, (winner, x)


def _max_pool_backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
  winner, x = residuals
  zero = jnp.zeros((), g.dtype)

  def spread(k: int) -> jax.Array:
    low = (k // 3, k % 3)
    edges = [(a, n - a - (2 * m - 1), 1) for a, n, m in zip(low, x.shape[1:3], g.shape[1:3], strict=True)]
    return jax.lax.pad(jnp.where(winner == k, g, 0), zero, [(0, 0, 0), *edges, (0, 0, 0)])

  return (sum((spread(k) for k in range(1, 9)), spread(0)),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _product(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
  """x [..., C] times kernel [1, 1, C, D] or [C, D]: a 1x1 convolution or a dense layer as one matrix product.

  Two-dimensional on CPUs, because XLA finds the gradient of the kernel of any other by copying x into another order
  (docs/performance.md); on TPUs the change of shape would be a copy.
  """
  kernel = kernel.reshape(kernel.shape[-2:])
  if devices.kind() != "cpu":
    return x @ kernel
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


Dense = functools.partial(nn.Dense, dot_general=_product)


def narrow_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolution of few channels, `VALID`: x [B, H, W, C], kernel [k, k, C, D] -> [B, H', W', D].

  What each tap sees comes first, [k k C, B H' W'], so that a CPU copies whole rows. XLA:CPU's gradient of the direct
  form, which the others take, is dozens of times slower.
  """
  if devices.kind() != "cpu":
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  k = len(kernel)
  rows, cols = x.shape[1] - k + 1, x.shape[2] - k + 1
  x = jnp.moveaxis(x, -1, 0)
  seen = jnp.stack([x[..., i:i + rows:stride, j:j + cols:stride] for i in range(k) for j in range(k)])
  out = jnp.einsum("tn,td->nd", seen.reshape(k * k * len(x), -1), kernel.reshape(-1, kernel.shape[-1]))
  return out.reshape(*seen.shape[2:], -1)


class ConvNorm(nn.Module):
  """Convolution without bias, normalisation, optional ReLU. Padding is symmetric or none, see `backbone`."""

  features: int
  kernel: int = 3
  stride: int = 1
  dilation: int = 1
  relu: bool = True
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    pad = self.dilation * (self.kernel - 1) // 2 if self.stride == 1 else 0
    x = nn.Conv(self.features, (self.kernel,) * 2, self.stride, [(pad, pad)] * 2, kernel_dilation=self.dilation,
                use_bias=False, kernel_init=nn.initializers.he_normal(), dtype=self.dtype,
                conv_general_dilated=_product if self.kernel == self.stride == 1 else None)(x)
    return Norm(self.norm, self.axis_name, self.relu, self.dtype)(x, train)


class DepthwiseConv(nn.Module):
  """Depthwise convolution without bias (`depthwise.depthwise_conv`)."""

  kernel: int = 3
  stride: int = 1
  dilation: int = 1
  padding: str = "SAME"
  dtype: Any = jnp.float32
  kernel_init: Any = nn.initializers.variance_scaling(2.0, "fan_in", "normal", in_axis=(0, 1), out_axis=())

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param("kernel", self.kernel_init, (self.kernel, self.kernel, x.shape[-1]))
    return depthwise.depthwise_conv(
        x.astype(self.dtype), kernel, stride=self.stride, dilation=self.dilation, padding=self.padding)
