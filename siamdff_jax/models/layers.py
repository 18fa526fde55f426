"""What everything else is made of: a normalised convolution, the depthwise convolution as a module, a safe maximum."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from input_pipeline.errors import UserError
from siamdff_jax.models import depthwise

NORMS = ("batch", "frozen_batch", "group")


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def peak(x: jax.Array, axis: int) -> jax.Array:
  """`x.max(axis)` with a gradient that is always finite: it goes to the first of the largest entries.

  That of `jnp.max` is shared by the entries that equal the maximum. Where the compiler computes x a second time with
  another rounding (fusions, bfloat16 with excess precision) none does, and the gradient is 0/0.
  """
  return x.max(axis)


@peak.defjvp
def _peak_jvp(axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  (x,), (tangent,) = primals, tangents
  axis %= x.ndim
  winner = jax.lax.expand_dims(jax.lax.argmax(x, axis, jnp.int32), (axis,))
  chosen = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis) == winner
  return x.max(axis), jnp.where(chosen, tangent, 0).sum(axis)


def max_pool(x: jax.Array) -> jax.Array:
  """The maximum over 3x3 windows, stride 2, no padding: [B, H, W, C] -> [B, (H-1)//2, (W-1)//2, C].

  By strided slices, one axis after the other: equal to `nn.max_pool`, whose gradient XLA:CPU computes by a scalar loop
  (docs/performance.md).
  """
  for axis in (1, 2):
    size = 2 * ((x.shape[axis] - 3) // 2) + 1
    a, b, c = (jax.lax.slice_in_dim(x, start, start + size, 2, axis) for start in range(3))
    x = jnp.maximum(jnp.maximum(a, b), c)
  return x


def _as_product(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
  """A 1x1 convolution as what it is: XLA:CPU's convolution takes up to 1.5 times as long (docs/performance.md)."""
  return x @ kernel[0, 0]


class Norm(nn.Module):
  """Normalisation over channels, chosen by name.

  Attributes:
    kind: "batch" (statistics of the global batch: averaged over `axis_name` where the layout has one),
      "frozen_batch" (running statistics, never updated: for pretrained backbones) or "group".
    axis_name: the mapped axis to average batch statistics over, or None where the batch is one array.
    dtype: of the output; statistics are always float32.
  """

  kind: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    if self.kind == "group":
      groups = max(g for g in range(1, 33) if (x.shape[-1] % g == 0 and x.shape[-1] // g >= 4) or g == 1)
      return nn.GroupNorm(num_groups=groups, dtype=self.dtype)(x)
    if self.kind not in NORMS:
      raise UserError(f"norm is {self.kind!r}, expected one of {NORMS}")
    use_running = not train or self.kind == "frozen_batch"
    # `axis_name` exists only inside a mapped training step; initialisation and inference run without it.
    axis_name = None if use_running or self.is_initializing() else self.axis_name
    return nn.BatchNorm(use_running_average=use_running, momentum=0.9, axis_name=axis_name, dtype=self.dtype)(x)


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
                conv_general_dilated=_as_product if self.kernel == self.stride == 1 else None)(x)
    x = Norm(self.norm, self.axis_name, self.dtype)(x, train)
    return nn.relu(x) if self.relu else x


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
