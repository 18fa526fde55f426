"""SiamDFF written plainly in PyTorch: the other side of the speed comparison, never used to track.

The same network as `siamdff_jax/models`, from the same `config.model`, in PyTorch's idioms: NCHW, `nn.Conv2d`,
`scaled_dot_product_attention`, depthwise correlation as a grouped convolution. `pytorch_weights` takes the JAX
network's weights over by name; a test holds the outputs equal, which is what makes the comparison fair.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import pytorch
from input_pipeline.errors import UserError
from siamdff_jax.models.backbone import LEVELS, STRIDE, feature_side
from siamdff_jax.models.intensity import SCALES
from siamdff_jax.models.siamdff import CORRELATION_SIDE

_FLAX_EPSILON = 1e-6  # Flax' default of group and layer normalisation.


class ConvNorm(nn.Module):
  """Convolution without bias, normalisation, optional ReLU."""

  def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1,
               padding: int | None = None, relu: bool = True, norm: str = "batch"):
    super().__init__()
    if padding is None:
      padding = dilation * (kernel - 1) // 2 if stride == 1 else 0
    self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    if norm == "batch":
      self.norm = nn.BatchNorm2d(outputs)
    else:
      groups = max(g for g in range(1, 33) if (outputs % g == 0 and outputs // g >= 4) or g == 1)
      self.norm = nn.GroupNorm(groups, outputs, eps=_FLAX_EPSILON)
    self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

  def forward(self, x: Tensor) -> Tensor:
    return self.relu(self.norm(self.conv(x)))


class ResidualBlock(nn.Module):
  """Basic or bottleneck block; strided 3x3 convolutions are not padded."""

  def __init__(self, inputs: int, width: int, bottleneck: bool, stride: int, dilation: int, norm: str):
    super().__init__()
    outputs = width * (4 if bottleneck else 1)
    spatial = dict(stride=stride, dilation=dilation, norm=norm)
    if bottleneck:
      self.convs = nn.Sequential(ConvNorm(inputs, width, 1, norm=norm), ConvNorm(width, width, 3, **spatial),
                                 ConvNorm(width, outputs, 1, relu=False, norm=norm))
    else:
      self.convs = nn.Sequential(ConvNorm(inputs, width, 3, **spatial),
                                 ConvNorm(width, outputs, 3, dilation=dilation, relu=False, norm=norm))
    self.stride = stride
    self.shortcut = nn.Identity() if inputs == outputs else ConvNorm(inputs, outputs, 1, relu=False, norm=norm)

  def forward(self, x: Tensor) -> Tensor:
    kept = x[:, :, 1:-1:2, 1:-1:2] if self.stride == 2 else x
    return F.relu(self.convs(x) + self.shortcut(kept))


class ResNet(nn.Module):
  """Atrous ResNet of stride 8."""

  def __init__(self, blocks: Sequence[int], widths: Sequence[int], bottleneck: bool, stem_kernel: int, norm: str):
    super().__init__()
    self.stem = ConvNorm(1, widths[0], stem_kernel, stride=2, padding=(stem_kernel - 3) // 2, norm=norm)
    self.pool = nn.MaxPool2d(3, 2)
    channels, self.outputs = widths[0], {}
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
      layers = []
      for i in range(count):
        stride = 2 if stage == 2 and i == 0 else 1
        layers.append(ResidualBlock(channels, width, bottleneck, stride, {3: 2, 4: 4}.get(stage, 1), norm))
        channels = width * (4 if bottleneck else 1)
      self.add_module(f"stage{stage}", nn.Sequential(*layers))
      self.outputs[stage] = channels

  def forward(self, x: Tensor) -> dict[int, Tensor]:
    """[B, 1, S, S] -> {level: [B, C_level, S//8, S//8]}."""
    x = self.stage1(self.pool(self.stem(x)))
    x2 = self.stage2(x)
    x3 = self.stage3(x2)
    return {2: x2, 3: x3, 4: self.stage4(x3)}


class IntensityPrior(nn.Module):
  """Centre-surround contrast of a crop, see `models/intensity.py`: [B, 1, S, S] -> float32 [B, scales, S//8, S//8]."""

  def __init__(self, side: int, template_side: int):
    super().__init__()
    n = feature_side(side)
    cells = (side - 1) / 2 + STRIDE * (np.arange(n) - (n - 1) / 2)
    points = (cells[:, None] + [-STRIDE / 4, STRIDE / 4]).reshape(-1, 1)
    for i, scale in enumerate(SCALES):
      width = 2 * round((template_side * scale - 1) / 2) + 1
      for name, window in (("inner", width), ("outer", 3 * width)):
        rows = np.abs(np.arange(side) - points) <= window // 2  # [2n, side]
        self.register_buffer(f"{name}{i}", torch.tensor(rows, dtype=torch.float32), persistent=False)

  @torch.no_grad()
  def forward(self, image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):  # Differences of large sums.
      x = image.float()
      x = x - x.mean((2, 3), keepdim=True)
      maps = []
      for i in range(len(SCALES)):
        inner_count, inner, inner_squares = self._window(getattr(self, f"inner{i}"), x)
        outer_count, outer, outer_squares = self._window(getattr(self, f"outer{i}"), x)
        ring_count = outer_count - inner_count
        ring_mean = (outer - inner) / ring_count
        variance = (outer_squares - inner_squares) / ring_count - ring_mean**2
        deviation = variance.clamp(min=(2 / 255) ** 2).sqrt()
        maps.append((inner / inner_count - ring_mean).abs() / deviation)
      return torch.log1p(F.avg_pool2d(torch.cat(maps, 1), 2))

  @staticmethod
  def _window(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel count [2n, 2n], sums of x and x^2 [B, 1, 2n, 2n] of the windows around each point."""
    count = rows.sum(1)
    return torch.outer(count, count), rows @ x @ rows.T, rows @ (x * x) @ rows.T


class IntensityAttention(nn.Module):
  """Multi-head cross-attention whose logits and values see the keys' intensity."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.heads = heads
    self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
    self.alpha = nn.Parameter(torch.zeros(heads, len(SCALES)))
    self.value_gate = nn.Conv2d(len(SCALES), width, 3, padding=1)

  def forward(self, queries: Tensor, keys: Tensor, intensity: Tensor) -> Tensor:
    """Tokens [B, N, D] and [B, M, D], intensity of the keys [B, S, H, W] with H W = M -> [B, N, D]."""
    b, n, d = queries.shape
    gate = 1 + torch.tanh(self.value_gate(intensity)).flatten(2).transpose(1, 2)
    q, k, v = self.query(queries), self.key(keys), self.value(keys) * gate
    bias = torch.einsum("bsm,hs->bhm", intensity.flatten(2), self.alpha)[:, :, None]  # [B, heads, 1, M]
    bias = bias.to(q.dtype).expand(-1, -1, n, -1)
    attended = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v.to(q.dtype)),
                                              attn_mask=bias)
    return attended.transpose(1, 2).reshape(b, n, d)

  def _split(self, x: Tensor) -> Tensor:
    """[B, N, D] -> [B, heads, N, d]."""
    b, n, d = x.shape
    return x.view(b, n, self.heads, d // self.heads).transpose(1, 2)


class SelectiveMerge(nn.Module):
  """How much of the attended features enters, per channel and per position."""

  def __init__(self, width: int):
    super().__init__()
    self.channel_hidden = nn.Linear(4 * width, max(width // 4, 8))
    self.channel_logits = nn.Linear(max(width // 4, 8), 2 * width)
    self.position = nn.Conv2d(4, 1, 3, padding=1)
    self.out = nn.Linear(width, width)

  def forward(self, original: Tensor, attended: Tensor, side: int) -> Tensor:
    """Tokens [B, N, D], [B, N, D], N = side^2 -> [B, N, D]."""
    b, _, d = original.shape
    both = torch.cat([original, attended], -1)
    pooled = torch.cat([both.mean(1), both.amax(1)], -1)
    channel = self.channel_logits(F.relu(self.channel_hidden(pooled))).view(b, 2, 1, d).softmax(1)
    statistics = torch.stack([original.mean(-1), original.amax(-1), attended.mean(-1), attended.amax(-1)], 1)
    position = self.position(statistics.view(b, 4, side, side)).sigmoid().flatten(2).transpose(1, 2)  # [B, N, 1]
    return 2 * channel[:, 0] * original + 2 * channel[:, 1] * position * self.out(attended)


class STEN(nn.Module):
  """Enhances both branches of a level with each other."""

  def __init__(self, width: int, heads: int):
    super().__init__()
    self.search_attention, self.template_attention = IntensityAttention(width, heads), IntensityAttention(width, heads)
    self.search_merge, self.template_merge = SelectiveMerge(width), SelectiveMerge(width)

  def forward(self, template: Tensor, search: Tensor, template_intensity: Tensor, search_intensity: Tensor
              ) -> tuple[Tensor, Tensor]:
    """Maps [B, D, h, w], [B, D, H, W] -> (enhanced search, mixed template), the same shapes."""
    sides = template.shape[-1], search.shape[-1]
    z, x = (features.flatten(2).transpose(1, 2) for features in (template, search))
    enhanced = self.search_merge(x, self.search_attention(x, z, template_intensity), sides[1])
    mixed = self.template_merge(z, self.template_attention(z, x, search_intensity), sides[0])
    return enhanced.transpose(1, 2).reshape(search.shape), mixed.transpose(1, 2).reshape(template.shape)


def pool_inside(x: Tensor, mask: Tensor) -> Tensor:
  """Mean of x [B, D, h, w] weighted by mask [B, 1, h, w] -> [B, D]."""
  return (x * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1e-6)


def _norm(x: Tensor) -> Tensor:
  """Length of the vectors in axis 1, in float32, never 0."""
  return (x.float().square().sum(1) + 1e-12).sqrt()


def _mean(maps: Iterable[Tensor]) -> Tensor:
  """Of the maps of all levels."""
  return sum(maps) / len(LEVELS)


class ContextBlock(nn.Module):
  """Global context vector's update, [B, D, H, W] -> [B, D, 1, 1]."""

  def __init__(self, width: int):
    super().__init__()
    hidden = max(width // 4, 8)
    self.attention, self.hidden, self.out = nn.Linear(width, 1), nn.Linear(width, hidden), nn.Linear(hidden, width)
    self.norm = nn.LayerNorm(hidden, eps=_FLAX_EPSILON)

  def forward(self, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)  # [B, N, D]
    context = (self.attention(tokens).softmax(1) * tokens).sum(1)
    return self.out(F.relu(self.norm(self.hidden(context))))[:, :, None, None]


class DSFAM(nn.Module):
  """Local and global branches of the search levels, mixed per pixel."""

  def __init__(self, width: int):
    super().__init__()

    def depthwise(kernel: int, dilation: int) -> nn.Conv2d:
      return nn.Conv2d(width, width, kernel, padding=dilation * (kernel - 1) // 2, dilation=dilation, groups=width,
                       bias=False)

    self.local3, self.local5 = depthwise(3, 1), depthwise(5, 1)
    self.dilated2, self.dilated3 = depthwise(3, 2), depthwise(3, 3)
    self.context = ContextBlock(width)
    self.guide = nn.Conv2d(3, 5, 7, padding=3)
    self.scale = nn.Parameter(torch.zeros(width))

  def forward(self, levels: dict[int, Tensor], template: Tensor, mask: Tensor) -> Tensor:
    """{level: [B, D, H, W]}, template [B, D, h, w], mask [B, 1, h, w] -> [B, D, H, W]."""
    branches = [self.local3(levels[2]), self.local5(levels[2]), self.dilated2(levels[3]), self.dilated3(levels[4]),
                levels[4] + self.context(levels[4])]
    mean = (levels[2] + levels[3] + levels[4]) / 3
    descriptor = pool_inside(template, mask)[:, :, None, None]
    similarity = (descriptor * mean).sum(1) / (_norm(descriptor) * _norm(mean))
    guidance = torch.stack([similarity, mean.mean(1), mean.amax(1)], 1)
    weights = self.guide(guidance).softmax(1).to(mean.dtype)  # [B, 5, H, W]
    mixed = sum(weights[:, i:i + 1] * branch for i, branch in enumerate(branches))
    return mean + self.scale[:, None, None] * mixed


class DCFAM(nn.Module):
  """Joins the mixed template with the original, inside the box only."""

  def __init__(self, width: int):
    super().__init__()
    self.hidden = nn.Linear(2 * width, max(width // 4, 8))
    self.logits = nn.Linear(max(width // 4, 8), 2 * width)
    self.mask = nn.Conv2d(2 * width, 1, 3, padding=1)

  def forward(self, template: Tensor, mixed: Tensor, mask: Tensor) -> Tensor:
    """[B, D, h, w], [B, D, h, w], mask [B, 1, h, w] -> [B, D, h, w]."""
    b, d = template.shape[:2]
    descriptors = torch.cat([pool_inside(template, mask), pool_inside(mixed, mask)], -1)
    weights = self.logits(F.relu(self.hidden(descriptors))).view(b, 2, d, 1, 1).softmax(1)
    keep = mask * self.mask(torch.cat([template, mixed * mask], 1)).sigmoid()
    return weights[:, 0] * template + weights[:, 1] * torch.lerp(template, mixed, keep.to(mixed.dtype))


class Head(nn.Module):
  """Class, quality and ltrb per cell, one presence logit per image."""

  def __init__(self, width: int, tower_depth: int):
    super().__init__()

    def tower() -> nn.Sequential:
      return nn.Sequential(*(ConvNorm(width, width, 3, norm="group") for _ in range(tower_depth)))

    self.class_tower, self.box_tower = tower(), tower()
    self.class_logit, self.quality_logit, self.ltrb = (nn.Conv2d(width, n, 3, padding=1) for n in (1, 1, 4))
    self.presence_hidden = nn.Linear(2 * width, max(width // 2, 8))
    self.presence = nn.Linear(max(width // 2, 8), 1)

  def forward(self, response: Tensor) -> dict[str, Tensor]:
    """[B, D, n, n] -> float32 class_logit, quality_logit [B, n, n], ltrb [B, n, n, 4], presence_logit [B]."""
    classes, sides = self.class_tower(response), self.box_tower(response)
    ltrb = self.ltrb(sides).float().clamp(max=6.0).exp() * STRIDE
    pooled = torch.cat([classes.mean((2, 3)), classes.amax((2, 3))], -1)
    return {
        "class_logit": self.class_logit(classes)[:, 0].float(),
        "quality_logit": self.quality_logit(sides)[:, 0].float(),
        "ltrb": ltrb.permute(0, 2, 3, 1),
        "presence_logit": self.presence(F.relu(self.presence_hidden(pooled)))[:, 0].float(),
    }


class SiamDFF(nn.Module):
  """The whole network of a `config.model`.

  Raises:
    UserError: a part that the comparison leaves out: the lite backbone, frozen statistics, a switched-off module.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    super().__init__()
    if reason := pytorch.not_comparable(config):
      raise UserError(f"{reason}: choose such a model, as configs/siamdff_r50.py")
    options, width = config.backbone, config.features
    self.mean, self.std, self.padding = config.mean, config.std, config.correlation_padding
    self.cells = min(CORRELATION_SIDE, feature_side(config.template_side))
    self.backbone = ResNet(options.blocks, options.widths, options.bottleneck, options.stem_kernel, config.norm)
    self.neck = nn.ModuleDict({
        f"level{level}": ConvNorm(self.backbone.outputs[level], width, 1, relu=False, norm=config.norm)
        for level in LEVELS})
    self.template_prior = IntensityPrior(config.template_side, config.template_side)
    self.search_prior = IntensityPrior(config.search_side, config.template_side)
    self.sten = nn.ModuleDict({str(level): STEN(width, config.heads) for level in LEVELS})
    self.dsfam, self.dcfam, self.head = DSFAM(width), DCFAM(width), Head(width, config.tower_depth)

  def forward(self, template: Tensor, template_wh: Tensor, search: Tensor) -> dict[str, Tensor]:
    """Crops [B, 1, S, S] of grey levels in [0, 1], the target's size [B, 2] in pixels -> the head's outputs."""
    return self.track(self.encode_template(template, template_wh), search)

  def encode_template(self, template: Tensor, template_wh: Tensor) -> dict[str, Any]:
    """What is computed once per target; the first argument of `track`."""
    margin = (feature_side(template.shape[-1]) - self.cells) // 2

    def cut(x: Tensor) -> Tensor:
      return x[:, :, margin:margin + self.cells, margin:margin + self.cells]

    return {"features": {level: cut(x) for level, x in self._features(template).items()},
            "intensity": cut(self.template_prior(template)), "mask": self._box_mask(template_wh)}

  def track(self, encoded: Mapping[str, Any], search: Tensor) -> dict[str, Tensor]:
    """The search pass, crops [B, 1, S, S]."""
    levels, features, prior = encoded["features"], self._features(search), self.search_prior(search)
    merged = {level: self.sten[str(level)](levels[level], x, encoded["intensity"], prior)
              for level, x in features.items()}
    template, mixed = _mean(levels[level] for level in LEVELS), _mean(merged[level][1] for level in LEVELS)
    fused_search = self.dsfam({level: merged[level][0] for level in LEVELS}, template, encoded["mask"])
    fused_template = self.dcfam(template, mixed, encoded["mask"])
    fused_search = F.pad(fused_search, [self.padding] * 4)
    b, d, side, _ = fused_search.shape
    response = F.conv2d(fused_search.reshape(1, b * d, side, side),
                        fused_template.reshape(b * d, 1, self.cells, self.cells), groups=b * d)
    return self.head(response.view(b, d, *response.shape[-2:]) / self.cells)

  def _features(self, image: Tensor) -> dict[int, Tensor]:
    levels = self.backbone((image - self.mean) / self.std)
    return {level: self.neck[f"level{level}"](levels[level]) for level in LEVELS}

  def _box_mask(self, box_wh: Tensor) -> Tensor:
    """The share of each cell that the centred box [B, 2] covers, [B, 1, h, w]."""
    left = STRIDE * (torch.arange(self.cells, device=box_wh.device) - self.cells / 2)
    half = box_wh[:, :, None] / 2
    cover = (torch.minimum(left + STRIDE, half) - torch.maximum(left, -half)).clamp(min=0) / STRIDE  # [B, 2, cells]
    return (cover[:, 1, :, None] * cover[:, 0, None, :])[:, None]
