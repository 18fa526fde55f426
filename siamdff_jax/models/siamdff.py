"""SiamDFF: the whole network on one page.

    template -> backbone -> neck -> cut ---.
                                            STEN per level -> DCFAM ---.
    search ---> backbone -> neck ----------'       |                    correlation -> head
                                                  DSFAM ---------------'
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from siamdff_jax.models import backbone as backbones
from siamdff_jax.models import dcfam, depthwise, intensity
from siamdff_jax.models.dsfam import DSFAM
from siamdff_jax.models.head import Head
from siamdff_jax.models.neck import Neck, centre_cut
from siamdff_jax.models.sten import STEN

CORRELATION_SIDE = 7  # Cells of the (cut) template that are correlated over the search map.


class SiamDFF(nn.Module):
  """The tracker's network.

  Attributes:
    backbone: a module from {level: features}.
    features: D, channels from the neck on.
    heads: attention heads of STEN.
    tower_depth: convolutions per tower of the head.
    template_side, search_side: crop sides in pixels, 8 n + 7.
    mean, std: of the grey levels in [0, 1].
    correlation_padding: cells of zeros around the search map before the correlation, for fast targets (our choice). 0
      is SiamCAR's: centres are found in the middle of the crop only; each cell reaches 8 pixels farther out.
    prior_channel: the inputs have a second channel, the target's box as a soft mask (a privileged teacher's).
    use_sten, use_intensity, use_dsfam, use_dcfam: the ablation switches. All off leaves a SiamCAR-like tracker.
  """

  backbone: nn.Module
  features: int = 256
  heads: int = 8
  tower_depth: int = 4
  template_side: int = 127
  search_side: int = 255
  mean: float = 0.45
  std: float = 0.2
  correlation_padding: int = 0
  prior_channel: bool = False
  use_sten: bool = True
  use_intensity: bool = True
  use_dsfam: bool = True
  use_dcfam: bool = True
  norm: str = "batch"
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @property
  def response_side(self) -> int:
    """Cells per side of the head's maps."""
    template, search = (backbones.feature_side(side) for side in (self.template_side, self.search_side))
    return search + 2 * self.correlation_padding - min(CORRELATION_SIDE, template) + 1

  def setup(self) -> None:
    self.neck = Neck(self.features, self.norm, self.axis_name, self.dtype)
    if self.use_sten:
      self.sten = {str(level): STEN(self.heads, self.use_intensity, self.dtype) for level in backbones.LEVELS}
    if self.use_dsfam:
      self.dsfam = DSFAM(self.dtype)
    if self.use_dcfam:
      self.dcfam = dcfam.DCFAM(self.dtype)
    self.head = Head(self.tower_depth, self.template_side, self.dtype)

  def __call__(self, template: jax.Array, template_wh: jax.Array, search: jax.Array, train: bool = False
               ) -> dict[str, Any]:
    """Both branches.

    Args:
      template: [B, St, St, C] grey levels in [0, 1] (C = 1, or 2 with `prior_channel`).
      template_wh: [B, 2] the target's width and height in pixels of the template crop; it is at its centre.
      search: [B, Ss, Ss, C].
      train: use and update batch statistics.

    Returns:
      The head's outputs (see `head.Head`) and every intermediate by name: "template"/"search" (neck),
      "template_backbone"/"search_backbone" ({level: ...}), "sten" ({level: ...}), "dsfam", "fused_template",
      "fused_search", "response".
    """
    encoded = self.encode_template(template, template_wh, train)
    return self.track(encoded, search, train)

  def encode_template(self, template: jax.Array, template_wh: jax.Array, train: bool = False) -> dict[str, Any]:
    """What is computed once per target; the result is the first argument of `track`."""
    levels, features = self._features(template, train)
    side = min(CORRELATION_SIDE, features[2].shape[1])
    return {
        "backbone": levels,
        "features": {level: centre_cut(x, side) for level, x in features.items()},
        "intensity": centre_cut(
            intensity.intensity_prior(template[..., :1], self.template_side), side).astype(self.dtype),
        "mask": dcfam.box_mask(template_wh, side),
    }

  def track(self, encoded: Mapping[str, Any], search: jax.Array, train: bool = False) -> dict[str, Any]:
    """The search pass: a template from `encode_template` against search crops [B, Ss, Ss, C]."""
    out = {"template_backbone": encoded["backbone"], "template": encoded["features"], "template_mask": encoded["mask"]}
    out["search_backbone"], out["search"] = self._features(search, train)
    mixed, enhanced = encoded["features"], out["search"]
    if self.use_sten:
      prior = intensity.intensity_prior(search[..., :1], self.template_side).astype(self.dtype)
      out["sten"] = {
          level: self.sten[str(level)](encoded["features"][level], x, encoded["intensity"], prior)
          for level, x in out["search"].items()
      }
      mixed = {level: x["mixed_template"] for level, x in out["sten"].items()}
      enhanced = {level: x["search"] for level, x in out["sten"].items()}

    template, mixed = _mean(encoded["features"]), _mean(mixed)  # [B, 7, 7, D]
    if self.use_dsfam:
      out["dsfam"] = self.dsfam(enhanced, template, encoded["mask"])
      out["fused_search"] = out["dsfam"]["search"]
    else:
      out["fused_search"] = _mean(enhanced)  # [B, H, W, D]
    out["fused_template"] = self.dcfam(template, mixed, encoded["mask"]) if self.use_dcfam else mixed
    pad = self.correlation_padding
    searched = jnp.pad(out["fused_search"], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    response = depthwise.depthwise_correlation(searched, out["fused_template"])
    # A mean over the taps, not a sum, so that the response's scale does not depend on the template's side.
    response = response / (out["fused_template"].shape[1] * out["fused_template"].shape[2]) ** 0.5
    out["response"] = lax.optimization_barrier(response)  # As in `norm`.
    return out | self.head(out["response"])

  def _features(self, image: jax.Array, train: bool) -> tuple[dict[int, jax.Array], dict[int, jax.Array]]:
    """[B, S, S, C] -> (backbone levels, neck levels)."""
    x = jnp.concatenate([(image[..., :1] - self.mean) / self.std, image[..., 1:]], -1).astype(self.dtype)
    levels = self.backbone(x, train)
    return levels, self.neck(levels, train)


def _mean(levels: Mapping[int, jax.Array]) -> jax.Array:
  """The mean of the levels' features, all [B, H, W, D]."""
  return sum((levels[level] for level in backbones.LEVELS), jnp.zeros((), levels[2].dtype)) / len(levels)
