"""Where a feature map is active: FGD's spatial and channel attention (Yang et al. 2022, eq. 2-5)."""

import jax
import jax.numpy as jnp


def spatial_attention(features: jax.Array, temperature: float) -> jax.Array:
  """HW * softmax over positions of mean_c |F| / temperature: [B, H, W, C] -> [B, H, W] with mean 1."""
  b, h, w, _ = features.shape
  activity = jnp.abs(features).mean(-1).reshape(b, -1)
  return h * w * jax.nn.softmax(activity / temperature, axis=-1).reshape(b, h, w)


def channel_attention(features: jax.Array, temperature: float) -> jax.Array:
  """C * softmax over channels of mean_hw |F| / temperature: [B, H, W, C] -> [B, C] with mean 1."""
  return features.shape[-1] * jax.nn.softmax(jnp.abs(features).mean((1, 2)) / temperature, axis=-1)
