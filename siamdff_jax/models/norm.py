"""Normalisation over channels, with the ReLU after it: group or batch statistics, gradient by hand.

Everything is one scale and one shift per channel (and example), found from sums over the map. The gradient has the same
form, dx = a g + b x + c with coefficients per channel, so that XLA passes over the maps twice instead of up to seven
times (docs/performance.md).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from input_pipeline.errors import UserError

NORMS = ("batch", "frozen_batch", "group")
_MOMENTUM = 0.9  # Of the running statistics.


def _epsilon(groups: int) -> float:
  """What is added to variances: Flax's own defaults for GroupNorm and BatchNorm."""
  return 1e-6 if groups else 1e-5


def _affine(x: jax.Array, scale: jax.Array, shift: jax.Array, relu: bool) -> jax.Array:
  """x scale + shift in float32 (coefficients [B or 1, C]), cut at 0 on demand; the dtype of x."""
  y = x.astype(jnp.float32) * scale[:, None, None] + shift[:, None, None]
  return (jnp.maximum(y, 0) if relu else y).astype(x.dtype)


def _pooled(total: jax.Array, count: int, groups: int, axis_name: str | None) -> jax.Array:
  """Means over what is normalised together, repeated for each of its channels.

  Args:
    total: [2, B, C], each example's sums over the map, of two things.
    count: positions of the map.
    groups: channels' groups, each example for itself; 0 means over all examples, of all devices along `axis_name`.

  Returns:
    [2, B or 1, C].
  """
  mean = total / count
  if not groups:
    mean = mean.mean(1, keepdims=True)
    return lax.pmean(mean, axis_name) if axis_name else mean
  group = np.arange(total.shape[-1]) // (total.shape[-1] // groups)
  return jnp.matmul(mean, np.float32(group[:, None] == group) * groups / group.size, precision="highest")


def _sum(x: jax.Array) -> jax.Array:
  """[B, H, W, C] -> float32 [B, C]."""
  return x.sum((1, 2), dtype=jnp.float32)


def _statistics(x: jax.Array, groups: int, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
  """Mean and variance, each [B or 1, C]."""
  totals = jnp.stack([_sum(x), _sum(lax.square(x.astype(jnp.float32)))])
  mean, square = _pooled(totals, x.shape[1] * x.shape[2], groups, axis_name)
  return mean, jnp.maximum(square - lax.square(mean), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int = 0, relu: bool = False,
              axis_name: str | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(x - mean) / sqrt(variance + epsilon) scale + bias, with x's own statistics.

  Args:
    x: [B, H, W, C].
    scale, bias: float32 [C].
    groups: of channels, each normalised per example; 0 is batch normalisation.
    relu: cut at 0.
    axis_name: the mapped axis whose devices share the batch, or None; without groups only.

  Returns:
    [B, H, W, C] in x's dtype, and mean and variance, float32 [B or 1, C], through which no gradient flows.
  """
  return _forward(x, scale, bias, groups, relu, axis_name)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, relu: bool, axis_name: str | None) -> Any:
  mean, variance = _statistics(x, groups, axis_name)
  inverse = lax.rsqrt(variance + _epsilon(groups))
  factor = inverse * scale
  shift = bias - mean * factor
  return (_affine(x, factor, shift, relu), mean, variance), (x, scale, mean, inverse, shift)


def _backward(groups: int, relu: bool, axis_name: str | None, residuals: Any, cotangents: Any) -> Any:
  x, scale, mean, inverse, shift = residuals
  wide, factor = x.astype(jnp.float32), inverse * scale
  g = cotangents[0].astype(jnp.float32)
  if relu:
    g = jnp.where(wide * factor[:, None, None] + shift[:, None, None] > 0, g, 0)
  of_bias = _sum(g)  # [B, C]
  of_scale = (_sum(g * wide) - mean * of_bias) * inverse
  # dx = inverse (scale g - mean(scale g) - y mean(scale g y)), with y = (x - mean) inverse.
  m0, m1 = _pooled(jnp.stack([of_bias, of_scale]) * scale, x.shape[1] * x.shape[2], groups, axis_name)
  of_x = -lax.square(inverse) * m1
  offset = -inverse * m0 - of_x * mean
  dx = g * factor[:, None, None] + wide * of_x[:, None, None] + offset[:, None, None]
  # Finished before the gradients of the convolution in front are computed from it: fused into one of a kernel, it takes
  # the TPU's compiler minutes.
  return lax.optimization_barrier(dx.astype(x.dtype)), of_scale.sum(0), of_bias.sum(0)


normalize.defvjp(_forward, _backward)


class _Coefficients(nn.Module):
  """Base of the two below: the parameters "scale" and "bias", [C]."""

  relu: bool = False
  axis_name: str | None = None

  def coefficients(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    shape = x.shape[-1:]
    return self.param("scale", nn.initializers.ones, shape), self.param("bias", nn.initializers.zeros, shape)


class GroupNorm(_Coefficients):
  """Statistics of groups of channels, per example: as many groups as divide the channels, 32 at most, of 4 at least."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    groups = max(g for g in range(1, 33) if (channels % g == 0 and channels // g >= 4) or g == 1)
    return normalize(x, *self.coefficients(x), groups, self.relu)[0]


class BatchNorm(_Coefficients):
  """Statistics of the batch, whose running means are kept in "batch_stats", or those running means."""

  @nn.compact
  def __call__(self, x: jax.Array, use_running: bool) -> jax.Array:
    scale, bias = self.coefficients(x)
    running = [self.variable("batch_stats", name, make, x.shape[-1:], jnp.float32)
               for name, make in (("mean", jnp.zeros), ("var", jnp.ones))]
    if use_running:
      mean, variance = (variable.value for variable in running)
      factor = lax.rsqrt(variance + _epsilon(0)) * scale
      return _affine(x, factor[None], (bias - mean * factor)[None], self.relu)
    # The axis exists only inside a mapped training step; initialisation runs without it.
    axis_name = None if self.is_initializing() else self.axis_name
    out, *found = normalize(x, scale, bias, 0, self.relu, axis_name)
    if not self.is_initializing():
      for variable, value in zip(running, found, strict=True):
        variable.value = _MOMENTUM * variable.value + (1 - _MOMENTUM) * value[0]
    return out


class Norm(nn.Module):
  """Normalisation over channels, chosen by name, and the ReLU after it.

  Attributes:
    kind: "batch" (statistics of the global batch: averaged over `axis_name` where the layout has one),
      "frozen_batch" (running statistics, never updated: for pretrained backbones) or "group".
    axis_name: the mapped axis to average batch statistics over, or None where the batch is one array.
    relu: cut at 0.
    dtype: of the output; statistics are always float32.
  """

  kind: str = "batch"
  axis_name: str | None = None
  relu: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    x = x.astype(self.dtype)
    if self.kind == "group":
      return GroupNorm(self.relu)(x)
    if self.kind not in NORMS:
      raise UserError(f"norm is {self.kind!r}, expected one of {NORMS}")
    return BatchNorm(self.relu, self.axis_name)(x, not train or self.kind == "frozen_batch")
