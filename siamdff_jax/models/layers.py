"""What everything else is made of: convolutions as modules, dense layers, pooling, a safe maximum."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from siamdff_jax.models import depthwise
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


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
  """The maximum over 3x3 windows, stride 2, no padding: [B, H, W, C] -> [B, (H-1)//2, (W-1)//2, C].

  By strided slices, one axis after the other: equal to `nn.max_pool`, also in the gradient, which goes to the first of
  the largest entries; XLA:CPU computes that of `nn.max_pool` by a scalar loop (docs/performance.md).
  """
  for axis in (1, 2):
    size = 2 * ((x.shape[axis] - 3) // 2) + 1
    a, b, c = (jax.lax.slice_in_dim(x, start, start + size, 2, axis) for start in range(3))
    x = jnp.maximum(jnp.maximum(a, b), c)
  return x


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, Any]:
  top = max_pool(x)
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


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _product(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
  """x [..., C] times kernel [1, 1, C, D] or [C, D]: a 1x1 convolution or a dense layer as one matrix product.

  Two-dimensional, because XLA:CPU finds the gradient of the kernel of any other by copying x into another order
  (docs/performance.md).
  """
  out = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[-2:])
  return out.reshape(*x.shape[:-1], -1)


Dense = functools.partial(nn.Dense, dot_general=_product)


def narrow_conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """Convolution of few channels, `VALID`, as one product: x [B, H, W, C], kernel [k, k, C, D] -> [B, H', W', D].

  What each tap sees comes first, [k k C, B H' W'], so that XLA:CPU copies whole rows. Its gradient of the direct form
  is dozens of times slower.
  """
  k = len(kernel)
  rows, cols = x.shape[1] - k + 1, x.shape[2] - k + 1
  x = jnp.moveaxis(x, -1, 0)
  seen = jnp.stack([x[..., i:i + rows:stride, j:j + cols:stride] for i in range(k) for j in range(k)])
  out = jnp.einsum("tn,td->nd", seen.reshape(k * k * len(x), -1), kernel.reshape(-1, kernel.shape[-1]))
  return out.reshape(*seen.shape[2:], -1)


class NarrowConv(nn.Module):
  """Convolution with bias from few channels, padded to keep the size (`narrow_conv`)."""

  features: int
  kernel: int = 3
  kernel_init: Any = nn.initializers.lecun_normal()
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, features]."""
    kernel = self.param("kernel", self.kernel_init, (self.kernel, self.kernel, x.shape[-1], self.features))
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    pad = self.kernel // 2
    x = jnp.pad(x.astype(self.dtype), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return narrow_conv(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


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
