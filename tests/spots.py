"""A stand-in for the network that needs no weights, and frames for it: bright squares are targets."""

import jax
import jax.numpy as jnp
import numpy as np

H, W, SIDE = 160, 224, 16  # Frames, and the target in them.


class Spots:
  """In the place of a network: whatever is bright is a target of the template's size, the brighter the surer."""

  template_side, search_side, prior_channel = 63, 127, False

  def apply(self, variables, *inputs, method):
    return {"encode_template": self._encode, "track": self._track}[method](*inputs)

  def _encode(self, image, wh):
    return {"level": image.mean((1, 2, 3)), "wh": wh, "mask": jnp.ones(1)}

  def _track(self, encoded, images):
    # Cells of 8 pixels, symmetric about the crop's centre: the mean over 9x9 pixels about each.
    sums = jax.lax.reduce_window(images[:, 3:, 3:, 0], 0.0, jax.lax.add, (1, 9, 9), (1, 8, 8), "VALID")
    level = sums / 81  # [K, 15, 15]
    ltrb = jnp.concatenate([encoded["wh"], encoded["wh"]], -1)[:, None, None] / 2
    return {"class_logit": 40 * (level - 0.5), "quality_logit": jnp.full_like(level, 4.0),
            "ltrb": jnp.broadcast_to(ltrb, (*level.shape, 4)), "presence_logit": 20 * (level.max((1, 2)) - 0.6)}


def scene(places, level=255, seed=0):
  """Frames uint8 [T, H, W] of noise with a square of grey level 255 at each place (x, y of its corner), None: without.

  A place may have a third number, its grey level.
  """
  frames = np.random.default_rng(seed).normal(90, 5, (len(places), H, W)).clip(0, 255).astype(np.uint8)
  for frame, spots in zip(frames, places, strict=True):
    for x, y, *given in spots:
      frame[y:y + SIDE, x:x + SIDE] = given[0] if given else level
  return frames
