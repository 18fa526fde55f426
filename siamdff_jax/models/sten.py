"""STEN, selective target enhancement network: intensity-aware multi-head cross-attention in both branches.

The abstract of arXiv 2512.04581 fixes that such attention enhances important regions of the template and of the
search branch, and that the template branch yields a mixed template. Everything below is our choice.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from siamdff_jax.models.layers import Dense, peak


class IntensityAttention(nn.Module):
  """softmax(Q K^T / sqrt(d) + alpha_h . I_key) (V * (1 + tanh(conv I_key))), before the output projection.

  `alpha` [heads, S] and the value gate's kernel start at 0: plain multi-head cross-attention.
  """

  heads: int
  use_intensity: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, queries: jax.Array, keys: jax.Array, key_intensity: jax.Array) -> jax.Array:
    """queries [B, h, w, D], keys [B, H, W, D], key_intensity [B, H, W, S] -> attended [B, h, w, D]."""
    b, h, w, d = queries.shape

    def heads(x: jax.Array) -> jax.Array:
      """[B, .., D] -> [B, heads, N, D / heads]: heads first, so that the products below need no other order."""
      return x.reshape(b, -1, self.heads, d // self.heads).swapaxes(1, 2)

    q, k = heads(Dense(d, dtype=self.dtype, name="query")(queries)), heads(Dense(d, dtype=self.dtype, name="key")(keys))
    v = Dense(d, dtype=self.dtype, name="value")(keys)
    logits = jnp.einsum("bhqd,bhkd->bhqk", q / jnp.sqrt(q.shape[-1]).astype(q.dtype), k).astype(jnp.float32)
    if self.use_intensity:
      scales = key_intensity.shape[-1]
      alpha = self.param("alpha", nn.initializers.zeros, (self.heads, scales))
      logits += jnp.einsum("bks,hs->bhk", key_intensity.reshape(b, -1, scales).astype(jnp.float32), alpha)[:, :, None]
      gate = nn.Conv(d, (3, 3), kernel_init=nn.initializers.zeros, dtype=self.dtype, name="value_gate")(key_intensity)
      v = v * (1 + jnp.tanh(gate))
    # The softmax, divided after the product, where there are fewer numbers to divide.
    weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))  # [B, heads, hw, HW]
    attended = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(self.dtype), heads(v))
    attended = attended / weights.sum(-1, keepdims=True).astype(self.dtype)
    return lax.optimization_barrier(attended.swapaxes(1, 2).reshape(b, h, w, d))


class SelectiveMerge(nn.Module):
  """Decides per channel and per position how much of the attended features enters.

  Per channel: a softmax over {original, attended} from pooled statistics of both. Per position: a sigmoid from
  channel mean and maximum of both. The projection of the attended features starts at 0, so the whole starts as the
  identity.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, original: jax.Array, attended: jax.Array) -> jax.Array:
    """[B, H, W, D], [B, H, W, D] -> [B, H, W, D]."""
    d = original.shape[-1]
    pooled = [f(x.reshape(x.shape[0], -1, d), 1) for f in (jnp.mean, peak) for x in (original, attended)]  # [B, D] each
    hidden = nn.relu(Dense(max(d // 4, 8), dtype=self.dtype, name="channel_hidden")(jnp.concatenate(pooled, -1)))
    logits = Dense(2 * d, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="channel_logits")(hidden)
    # The softmax over two is a sigmoid of their difference; it starts at 1/2.
    keep = jax.nn.sigmoid(logits[:, :d] - logits[:, d:])[:, None, None]  # [B, 1, 1, D]
    statistics = jnp.stack([f(x, -1) for x in (original, attended) for f in (jnp.mean, peak)], -1)
    position = jax.nn.sigmoid(nn.Conv(1, (3, 3), dtype=self.dtype, name="position")(statistics))  # [B, H, W, 1]
    update = Dense(d, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="out")(attended)
    return 2 * keep * original + 2 * (1 - keep) * position * update


class STEN(nn.Module):
  """One feature level: enhanced search features and the mixed template."""

  heads: int = 8
  use_intensity: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, template: jax.Array, search: jax.Array, template_intensity: jax.Array,
               search_intensity: jax.Array) -> dict[str, jax.Array]:
    """Enhances both branches with each other.

    Args:
      template: [B, h, w, D].
      search: [B, H, W, D].
      template_intensity: [B, h, w, S], see `intensity.intensity_prior`.
      search_intensity: [B, H, W, S].

    Returns:
      "search" [B, H, W, D], "mixed_template" [B, h, w, D], and the attended features before the merge by name.
    """

    def attention(name: str) -> nn.Module:
      return IntensityAttention(self.heads, self.use_intensity, self.dtype, name=name)

    search_attended = attention("search_attention")(search, template, template_intensity)
    template_attended = attention("template_attention")(template, search, search_intensity)
    return {
        "search": SelectiveMerge(self.dtype, name="search_merge")(search, search_attended),
        "mixed_template": SelectiveMerge(self.dtype, name="template_merge")(template, template_attended),
        "search_attended": search_attended,
        "template_attended": template_attended,
    }
