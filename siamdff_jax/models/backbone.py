"""Backbones: {2, 3, 4} -> features of stride 8.

All strided layers are 3x3 (or the 7x7 stem padded by 2) with stride 2 and no padding, so that sides 63, 127, 191,
255, 383 become 7, 15, 23, 31, 47 and cell k of n lies exactly at pixel (side-1)/2 + 8 (k - (n-1)/2): the grid is
symmetric about the crop's centre (our choice; with `SAME` padding it would drift by half a cell per layer).
Stages 3 and 4 are dilated instead of strided (atrous ResNet, as in SiamRPN++ and SiamCAR).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from input_pipeline.errors import UserError
from siamdff_jax.models.layers import ConvNorm, DepthwiseConv, max_pool, narrow_conv
from siamdff_jax.models.norm import Norm

STRIDE = 8
LEVELS = (2, 3, 4)


def feature_side(side: int) -> int:
  """The side of the feature map of a crop with `side` pixels; raises UserError for sides that do not fit the grid."""
  if side % STRIDE != STRIDE - 1:
    raise UserError(f"crop side {side} does not fit the stride-8 grid, expected 8 n + 7 (63, 127, 191, 255, 383)")
  return side // STRIDE


class Stem(nn.Module):
  """Convolution of stride 2 on the pixels, see `layers.narrow_conv`."""

  features: int
  kernel: int
  norm: str
  axis_name: str | None
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    pad = (self.kernel - 3) // 2  # 3x3 unpadded and 7x7 padded by 2 give the same grid.
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    channels = x.shape[-1]
    kernel = self.param("kernel", nn.initializers.he_normal(), (self.kernel, self.kernel, channels, self.features))
    x = narrow_conv(x.astype(self.dtype), kernel.astype(self.dtype), 2)
    return Norm(self.norm, self.axis_name, True, self.dtype)(x, train)


class ResidualBlock(nn.Module):
  """Basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to 4 x features) residual block."""

  features: int
  bottleneck: bool = False
  stride: int = 1
  dilation: int = 1
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    common = dict(norm=self.norm, axis_name=self.axis_name, dtype=self.dtype)
    out_features = self.features * (4 if self.bottleneck else 1)
    if self.bottleneck:
      y = ConvNorm(self.features, 1, **common)(x, train)
      y = ConvNorm(self.features, 3, self.stride, self.dilation, **common)(y, train)
      y = ConvNorm(out_features, 1, relu=False, **common)(y, train)
    else:
      y = ConvNorm(self.features, 3, self.stride, self.dilation, **common)(x, train)
      y = ConvNorm(out_features, 3, 1, self.dilation, relu=False, **common)(y, train)
    if self.stride == 2:
      x = x[:, 1:-1:2, 1:-1:2]  # The centres of the unpadded strided 3x3 windows.
    if x.shape[-1] != out_features:
      x = ConvNorm(out_features, 1, relu=False, **common)(x, train)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Atrous ResNet.

  Attributes:
    blocks: residual blocks per stage 1..4, (2, 2, 2, 2) for ResNet-18, (3, 4, 6, 3) for 34 and 50.
    widths: channels per stage before the bottleneck's expansion.
    bottleneck: ResNet-50's blocks.
    stem_kernel: 7 (ResNet) or 3 (cheaper, for small crops).
    remat: recompute each block's activations in the backward pass: less memory for more time.
  """

  blocks: Sequence[int] = (2, 2, 2, 2)
  widths: Sequence[int] = (64, 128, 256, 512)
  bottleneck: bool = False
  stem_kernel: int = 7
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> dict[int, jax.Array]:
    """x: [B, S, S, C] -> {level: [B, S//8, S//8, C_level]}."""
    x = Stem(self.widths[0], self.stem_kernel, self.norm, self.axis_name, self.dtype, name="stem")(x, train)
    x = max_pool(x)  # [B, (S-3)/4, ...]
    block_cls = nn.remat(ResidualBlock, static_argnums=(2,)) if self.remat else ResidualBlock
    out = {}
    for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
      dilation = {3: 2, 4: 4}.get(stage, 1)
      for i in range(count):
        stride = 2 if stage == 2 and i == 0 else 1
        x = block_cls(width, self.bottleneck, stride, dilation, self.norm, self.axis_name, self.dtype,
                      name=f"stage{stage}_block{i}")(x, train)
      out[stage] = x
    return {level: out[level] for level in LEVELS}


class InvertedResidual(nn.Module):
  """1x1 expansion, depthwise 3x3, linear 1x1 projection, residual where the shape allows (MobileNetV2's block)."""

  features: int
  expansion: int
  stride: int = 1
  dilation: int = 1
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    common = dict(norm=self.norm, axis_name=self.axis_name, dtype=self.dtype)
    y = x
    if self.expansion > 1:
      y = ConvNorm(x.shape[-1] * self.expansion, 1, **common)(y, train)
    y = DepthwiseConv(3, self.stride, self.dilation, "VALID" if self.stride == 2 else "SAME", self.dtype)(y)
    y = Norm(self.norm, self.axis_name, True, self.dtype)(y, train)
    y = ConvNorm(self.features, 1, relu=False, **common)(y, train)
    return x + y if x.shape == y.shape else y


class Lite(nn.Module):
  """Inverted-residual backbone for real-time use on a CPU.

  Attributes:
    stages: (blocks, features, expansion) per stage 1..4.
  """

  stages: Sequence[Sequence[int]] = ((1, 16, 1), (2, 24, 4), (3, 48, 4), (2, 80, 4))
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> dict[int, jax.Array]:
    """x: [B, S, S, C] -> {level: [B, S//8, S//8, C_level]}."""
    x = Stem(self.stages[0][1], 3, self.norm, self.axis_name, self.dtype, name="stem")(x, train)
    out = {}
    for stage, (count, features, expansion) in enumerate(self.stages, 1):
      dilation = {3: 2, 4: 4}.get(stage, 1)
      for i in range(count):
        stride = 2 if stage in (1, 2) and i == 0 else 1
        x = InvertedResidual(features, expansion, stride, dilation, self.norm, self.axis_name, self.dtype,
                             name=f"stage{stage}_block{i}")(x, train)
      out[stage] = x
    return {level: out[level] for level in LEVELS}
