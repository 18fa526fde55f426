"""Infrared augmentation of pairs: what sensors, optics and gain control do to the same scene (our choice).

It runs inside the jitted step, whatever feeds it. Both crops of a pair come from one camera, so geometry, polarity,
lens and processing (tone curve, sharpening, local equalization, compression) go together; noise, blur and gain differ,
since the frames are moments apart. After a thermal crossover the same target is dark where it was bright: then only the
search crop is inverted. What happens to an example depends on the seed and the example's number alone: not on the
batch, the devices or the feed.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import ml_collections
from jax import lax, random

_DEAD_PIXELS = 5  # At most.
_EQUALIZED_LEVELS = 32  # Of the histogram that is equalized.
_LARGEST_BLOCK = 32  # Pixels of the crop that one block of a compressed frame covers, at most.
# Steps of the discrete cosine transform's 8x8 coefficients at JPEG quality 50 (ITU-T T.81, table K.1).
_JPEG_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99))


def augment(batch: Mapping[str, jax.Array], seed: int, config: ml_collections.ConfigDict) -> dict[str, jax.Array]:
  """Augments a batch.

  Args:
    batch: as `input_pipeline.pipeline.example`, stacked: "template" uint8 [B, St, St, 1], "search" uint8
      [B, Ss, Ss, 1], "search_box_ltrb" [B, 4], "index" uint32 [B], and more.
    seed: of the run.
    config: `config.data.augment`: a probability per effect, see configs/base.py.

  Returns:
    The batch with float32 crops in 0..255 and the boxes that go with them.
  """
  one = functools.partial(_augment_pair, config=config)
  keys = jax.vmap(functools.partial(random.fold_in, random.key(seed)))(batch["index"])
  template, search, box = jax.vmap(one)(
      keys, batch["template"][..., 0].astype(jnp.float32), batch["search"][..., 0].astype(jnp.float32),
      batch["search_box_ltrb"], batch["present"])
  return {**batch, "template": template[..., None], "search": search[..., None], "search_box_ltrb": box}


def _augment_pair(key: jax.Array, template: jax.Array, search: jax.Array, box: jax.Array, present: jax.Array,
                  config: ml_collections.ConfigDict) -> tuple[jax.Array, jax.Array, jax.Array]:
  """template [St, St], search [Ss, Ss], box ltrb [4] -> the same, augmented."""
  shared, *own = random.split(key, 3)
  flip, polarity, crossover = random.uniform(shared, (3,)) < jnp.array(
      [config.flip, config.polarity, config.crossover])

  def mirror(image: jax.Array) -> jax.Array:
    return jnp.where(flip, image[:, ::-1], image)

  def invert(image: jax.Array, inverted: jax.Array) -> jax.Array:  # White-hot and black-hot cameras.
    return jnp.where(inverted, 255 - image, image)

  side = search.shape[1]
  mirrored = jnp.array([side, 0, side, 0]) * present + box[jnp.array([2, 1, 0, 3])] * jnp.array([-1, 1, -1, 1])
  template, search = _processed(random.fold_in(shared, 1), [mirror(template), mirror(search)], config)
  template = _sensor(own[0], invert(template, polarity), config)
  search = _sensor(own[1], invert(search, polarity ^ crossover), config)
  template, search = _displayed(random.fold_in(shared, 2), [template, search], config)
  return template, search, jnp.where(flip, mirrored, box)


def _processed(key: jax.Array, images: Sequence[jax.Array], config: ml_collections.ConfigDict) -> Sequence[jax.Array]:
  """What a camera makes of all its images, each with its probability: blur of its lens, a tone curve, sharpening with
  its halos."""
  u = random.uniform(key, (5,))
  if config.lens:
    chance, width = random.uniform(random.fold_in(key, 0), (2,))
    sigma = jnp.where(chance < config.lens, 0.3 + 4.7 * width**2, 1e-3)
    images = [_blurred(image, *[_blur_matrix(sigma, len(image))] * 2) for image in images]
  if config.tone:
    exponent = jnp.exp2(jnp.where(u[0] < config.tone, 2 * u[1] - 1, 0))
    images = [255 * (image / 255) ** exponent for image in images]
  if config.halo:
    amount = jnp.where(u[2] < config.halo, 0.3 + 1.2 * u[3], 0)
    sharpened = []
    for image in images:
      blurred = _blurred(image, *[_blur_matrix(1 + 3 * u[4], len(image))] * 2)
      sharpened.append(jnp.clip(image + amount * (image - blurred), 0, 255))
    images = sharpened
  return images


def _displayed(key: jax.Array, images: Sequence[jax.Array], config: ml_collections.ConfigDict) -> Sequence[jax.Array]:
  """What happens to finished images, each with its probability: local equalization, compression."""
  chance, u = jnp.split(random.uniform(key, (7,)), [2])
  if config.equalize:
    limit = 1.5 + 3.5 * u[0]
    images = [jnp.where(chance[0] < config.equalize, _equalized(image, limit), image) for image in images]
  if config.compression:
    coarseness = jnp.exp2(5 * u[1] - 3.7)  # JPEG quality 96 to 20.
    block = jnp.floor(8 * jnp.exp2(2 * u[2])).astype(jnp.int32)  # Crops enlarge small targets.
    shifts = jnp.floor(u[3:] * block).astype(jnp.int32)
    images = [jnp.where(chance[1] < config.compression, _compressed(image, coarseness, block, shift), image)
              for image, shift in zip(images, shifts, strict=True)]
  return images


def _equalized(image: jax.Array, limit: jax.Array) -> jax.Array:
  """Histogram equalization with at most `limit` times the contrast, as CLAHE does about a target. [S, S] -> [S, S]."""
  width = 255 / _EQUALIZED_LEVELS
  starts = [width * i for i in range(_EQUALIZED_LEVELS)]  # Not an axis: terms become one loop.
  some = image[::2, ::2]
  share = jnp.diff(jnp.stack([(some < start).mean() for start in starts]), append=1.0)
  share = jnp.minimum(share, limit / _EQUALIZED_LEVELS)
  share += (1 - share.sum()) / _EQUALIZED_LEVELS  # As usual, what was cut off is given to all levels.
  parts = (share[i] * jnp.clip(image - start, 0, width) for i, start in enumerate(starts))
  curve = sum(parts, jnp.zeros(()))
  return jnp.minimum(255 / width * curve, 255)


def _compressed(image: jax.Array, coarseness: jax.Array, block: jax.Array, shift: jax.Array) -> jax.Array:
  """JPEG's loss: coefficients of the cosine transform of blocks, rounded to multiples of steps. [S, S] -> [S, S].

  Args:
    image: levels 0..255.
    coarseness: of the steps, 1 is JPEG quality 50.
    block: side in pixels of what was 8x8 pixels in the frame, int32, 8.._LARGEST_BLOCK; frequencies that a frame has
      no room for are zero.
    shift: where in a block the image begins, int32, less than `block`.
  """
  side = len(image)
  pixels = jnp.arange(-_LARGEST_BLOCK, side + _LARGEST_BLOCK)  # With a margin, so that the image's blocks are whole.
  rows = jnp.arange(side + 2 * _LARGEST_BLOCK)
  within, frequency = (pixels + shift) % block, rows % block
  wave = jnp.cos(jnp.pi / (2 * block) * ((2 * within + 1) * frequency[:, None]))
  wave *= jnp.sqrt(jnp.where(frequency == 0, 1, 2) / block)[:, None]
  transform = jnp.where((pixels + shift) // block == (rows // block)[:, None], wave, 0)
  known = frequency < 8
  index = jnp.minimum(frequency, 7)
  steps = jnp.array(_JPEG_STEPS, jnp.float32)[index[:, None], index] * coarseness * block / 8
  coefficients = _blurred(jnp.pad(image - 128, _LARGEST_BLOCK, mode="edge"), transform, transform)
  coefficients = jnp.where(known[:, None] & known, jnp.round(coefficients / steps) * steps, 0)
  back = transform.T[_LARGEST_BLOCK:_LARGEST_BLOCK + side]
  return jnp.clip(_blurred(coefficients, back, back) + 128, 0, 255)


def _sensor(key: jax.Array, image: jax.Array, config: ml_collections.ConfigDict) -> jax.Array:
  """One camera's effects, each with its probability; an effect of probability 0 costs nothing. [S, S] -> [S, S]."""
  side = image.shape[0]
  numbers, fields = random.split(key)
  # Few, large draws: each one's program takes its time to compile.
  names = ("fade", "gain", "blur", "noise", "stripes", "dead_pixels")
  chance, u, places = jnp.split(random.uniform(numbers, (6 + 8 + 3 * _DEAD_PIXELS,)), [6, 14])
  happens = {name: chance[i] < config[name] for i, name in enumerate(names)}

  if config.fade:  # Thermal crossover: the whole contrast shrinks about the mean.
    image = jnp.where(happens["fade"], image.mean() + (image - image.mean()) * (0.35 + 0.65 * u[0]), image)
  if config.gain:  # Automatic gain control drifts.
    drifted = (image - 128) * jnp.exp(0.7 * u[1] - 0.35) + 128 + 80 * u[2] - 40
    image = jnp.where(happens["gain"], drifted, image)
  if config.blur:  # Defocus, or motion along an axis.
    blurred = _blur_matrix(0.3 + u[3] * (0.02 * side - 0.3), side)
    along = jnp.floor(3 * u[4])
    rows = jnp.where(happens["blur"] & (along != 2), blurred, jnp.eye(side))
    columns = jnp.where(happens["blur"] & (along != 1), blurred, jnp.eye(side))
    image = _blurred(image, rows, columns)
  if config.noise or config.stripes:
    normal = _nearly_normal(fields, (side + 1, side))
    if config.grain:  # Crops of small targets are enlarged, and their noise with them.
      chance, width = random.uniform(random.fold_in(numbers, 0), (2,))
      grain = _grain_matrix(jnp.where(chance < config.grain, 0.2 + 1.8 * width, 1e-3), side)
      normal = jnp.concatenate([_blurred(normal[:1], jnp.eye(1), grain), _blurred(normal[1:], grain, grain)])
    image = image + jnp.where(happens["noise"], 1 + 7 * u[5], 0) * normal[1:]
    image = image + jnp.where(happens["stripes"], 1 + 4 * u[6], 0) * normal[:1]  # Column gains of a line readout.
  if config.dead_pixels:
    rows, columns, levels = places.reshape(3, -1)
    count = jnp.where(happens["dead_pixels"], jnp.floor(u[7] * _DEAD_PIXELS) + 1, 0)
    rows = jnp.where(jnp.arange(_DEAD_PIXELS) < count, jnp.floor(rows * side), side)  # Out of the image: dropped.
    at = rows.astype(jnp.int32), jnp.floor(columns * side).astype(jnp.int32)
    image = image.at[at].set(jnp.where(levels < 0.5, 0.0, 255.0), mode="drop")
  return jnp.clip(image, 0, 255)


def _nearly_normal(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
  """Mean 0, deviation 1, at most 3.5: the sum of four bytes of a hash of the place.

  Pixel noise needs many numbers and little of them: on a CPU this takes a tenth of the time of `random.normal`. The
  hash is the two-round "lowbias32" of C. Wellons' hash prospector.
  """
  first, second = random.bits(key, (2,), jnp.uint32)
  x = lax.iota(jnp.uint32, shape[0] * shape[1]) + first
  for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
    x = (x ^ (x >> shift)) * jnp.uint32(factor)
  x = (x ^ (x >> 16)) ^ second
  total = sum(((x >> shift) & 255 for shift in (0, 8, 16, 24)), jnp.zeros((), jnp.uint32))
  return ((total.astype(jnp.float32) - 510) * (4 * (256**2 - 1) / 12) ** -0.5).reshape(shape)


def _blurred(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """[H, W] under [H', H] along its columns and [W', W] along its rows -> [H', W']."""
  return jnp.matmul(jnp.matmul(rows, image, precision="highest"), columns.T, precision="highest")


def _blur_matrix(sigma: jax.Array, side: int) -> jax.Array:
  """[side, side]: a Gaussian about every row's own place; what would lie outside the image has no weight."""
  weights = _gaussians(sigma, side)
  return weights / weights.sum(1, keepdims=True)


def _grain_matrix(sigma: jax.Array, side: int) -> jax.Array:
  """[side, side]: the same, but white noise keeps its deviation."""
  weights = _gaussians(sigma, side)
  return weights * lax.rsqrt((weights**2).sum(1, keepdims=True))


def _gaussians(sigma: jax.Array, side: int) -> jax.Array:
  """[side, side]: bells of deviation `sigma` about every row's own place, 1 there."""
  distance = jnp.arange(side)[:, None] - jnp.arange(side)
  return jnp.exp(-0.5 * (distance / sigma) ** 2)
