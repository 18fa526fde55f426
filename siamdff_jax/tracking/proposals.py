"""Where in the whole frame a lost target may be: places that look like it, found without the network, and others.

A target's pattern is the mean grey levels of 5x5 parts of the box enlarged by two thirds. It is compared, as the
network sees the target, at the target's own scale: on a grid of points over the frame the same pattern is taken from
an integral image and correlated with that of the first frame or of the last frame in which the target was seen. What
correlates best is looked at by the network, and so are places all over the frame: a target that looks like neither is
found too, only later. (Our choice; docs/decisions.md.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.geometry import covered

_PARTS = 5  # Per side of a pattern,
_PARTS_INSIDE = 3  # of which so many cover the box.
_GRID = (128, 160)  # Rows and columns of the points that are compared.
_LEAST_SIDE = 3.0  # Pixels: below it parts would hold no pixel.
_RECURRENCE = (3242174889, 2447445414)  # 2^32 / p and 2^32 / p^2 with the plastic number p, p^3 = p + 1.
_UNROLLED = 16  # Rows per iteration of the loop that adds them up.


class Appearance(NamedTuple):
  """What a target looks like, small.

  Attributes:

    first, last: [5, 5] the target's pattern in the first frame, and in the last in which it was surely seen.
  """

  first: jax.Array
  last: jax.Array


def pattern(image: jax.Array, box: jax.Array) -> jax.Array:
  """The pattern of a box in a crop.

  Args:
    image: float [S, S] grey levels.
    box: [4] centre and size in pixels of the crop.

  Returns:
    float32 [5, 5], mean grey levels.
  """
  pixel = jnp.arange(image.shape[0])

  def weights(centre: jax.Array, length: jax.Array) -> jax.Array:  # [5, S]: the share of each pixel in each part.
    edges = centre + _edges(length)
    cover = covered(pixel, pixel + 1, edges[:-1, None], edges[1:, None])
    cover = cover + 1e-6  # A part outside of the crop has its mean.
    return cover / cover.sum(1, keepdims=True)

  rows, columns = weights(box[1], box[3]), weights(box[0], box[2])
  return jnp.einsum("ph,hw,qw->pq", rows, image, columns, precision="highest")


def propose(frame: jax.Array, shape: jax.Array, appearance: Appearance, target: jax.Array, reach: jax.Array,
            separation: jax.Array, turn: jax.Array, count: int) -> jax.Array:
  """Centres of places to look at: those most like the target's first look, those most like its last, in turn, and in
  every second frame places all over, whatever they look like.

  Args:
    frame: uint8 [H, W] grey levels.
    shape: int32 [2], rows and columns of the frame where it is the top left part of a larger canvas.
    appearance: what to look for.
    target: [4] last known centre and size, frame pixels.
    reach: [] pixels: how far from that centre, along each axis, the target may be.
    separation: [] pixels: no two places that look alike are closer than this along both axes.
    turn: int32 [] frames since the search began.
    count: K.

  Returns:
    float32 [K, 2] x, y.
  """
  wanted = jnp.where(turn // 2 % 2 == 0, appearance.first, appearance.last)
  return jax.lax.cond(turn % 2 == 0,
                      lambda: _most_alike(frame, shape, wanted, target, reach, separation, turn, count),
                      lambda: _all_over(shape, target, reach, turn // 2, count))


def _most_alike(frame: jax.Array, shape: jax.Array, wanted: jax.Array, target: jax.Array, reach: jax.Array,
                separation: jax.Array, turn: jax.Array, count: int) -> jax.Array:
  """[K, 2]. The grid moves by half its spacing from time to time. Where there are fewer such places, the last known
  centre takes what is left.
  """
  spacing = shape.astype(jnp.float32) / jnp.array(_GRID)
  offset = jnp.stack([turn // 8 % 2, turn // 4 % 2]) / 2 + 0.25
  y, x = ((jnp.arange(n) + offset[i]) * spacing[i] for i, n in enumerate(_GRID))
  score = _likeness(_patterns(frame, shape, y, x, jnp.maximum(target[2:], _LEAST_SIDE)), wanted)
  within = (jnp.abs(y - target[1]) <= reach)[:, None] & (jnp.abs(x - target[0]) <= reach)

  def best(score: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
    index = score.argmax()
    row, column = index // _GRID[1], index % _GRID[1]
    place = jnp.where(score.max() > -jnp.inf, jnp.stack([x[column], y[row]]), target[:2])
    near = (jnp.abs(y - place[1]) < separation)[:, None] & (jnp.abs(x - place[0]) < separation)
    return jnp.where(near, -jnp.inf, score), place

  return jax.lax.scan(best, jnp.where(within, score, -jnp.inf), None, length=count)[1]


def _all_over(shape: jax.Array, target: jax.Array, reach: jax.Array, turn: jax.Array, count: int) -> jax.Array:
  """[K, 2] of the part of the frame within reach: the next points of a sequence that fills it evenly however many are
  taken, the additive recurrence of the plastic number (Roberts, "The Unreasonable Effectiveness of Quasirandom
  Sequences", 2018). In integers: it must not get coarse after thousands of frames.
  """
  index = (turn * count + jnp.arange(count)).astype(jnp.uint32)
  share = (index[:, None] * jnp.array(_RECURRENCE, jnp.uint32) >> 8).astype(jnp.float32) / 2**24
  limit = shape[::-1].astype(jnp.float32)
  low, high = (jnp.clip(target[:2] + side * reach, 0, limit) for side in (-1, 1))
  return low + share * (high - low)


def _edges(length: jax.Array) -> jax.Array:
  """[6] the edges of a pattern's parts, relative to the centre of a box side of this length."""
  return (jnp.arange(_PARTS + 1) - _PARTS / 2) * length / _PARTS_INSIDE


def _patterns(frame: jax.Array, shape: jax.Array, y: jax.Array, x: jax.Array,
              wh: jax.Array) -> jax.Array:
  """Patterns [5, 5, rows, columns] about all points of a grid; parts outside of the frame have its mean level."""
  sums = integral_image(frame)

  def pixels(points: jax.Array, length: jax.Array, limit: jax.Array) -> jax.Array:
    # [6, points]: the edges of parts are edges of pixels.
    return jnp.clip(jnp.round(points + _edges(length)[:, None]).astype(jnp.int32), 0, limit)

  rows, columns = pixels(y, wh[1], shape[0]), pixels(x, wh[0], shape[1])
  bands = jnp.diff(sums[rows], axis=0)  # [5, rows, W + 1]
  parts = jnp.diff(bands[:, :, columns], axis=2).transpose(0, 2, 1, 3)  # [5, 5, rows, columns]
  area = jnp.diff(rows, axis=0)[:, None, :, None] * jnp.diff(columns, axis=0)[:, None]
  mean = sums[shape[0], shape[1]].astype(jnp.float32) / (shape[0] * shape[1])
  return jnp.where(area > 0, parts.astype(jnp.float32) / jnp.maximum(area, 1), mean)


def integral_image(frame: jax.Array) -> jax.Array:
  """uint8 [H, W] -> uint32 [H + 1, W + 1], the sum of all pixels above and left; exact up to 16 million pixels."""

  def add(total: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return total + row, total + row

  def running(rows: jax.Array) -> jax.Array:  # JAX's own cumsum takes ten times as long on a CPU.
    return jax.lax.scan(add, jnp.zeros(rows.shape[1], jnp.uint32), rows, unroll=_UNROLLED)[1]

  return jnp.pad(running(running(frame.astype(jnp.uint32)).T).T, ((1, 0), (1, 0)))


def _likeness(patterns: jax.Array, wanted: jax.Array) -> jax.Array:
  """[rows, columns]: the correlation coefficient, less where a pattern has less contrast than the wanted one."""
  wanted = wanted - wanted.mean()
  patterns = patterns - patterns.mean((0, 1))
  strength = jnp.sqrt(jnp.square(patterns).sum((0, 1)))
  product = (patterns * wanted[:, :, None, None]).sum((0, 1))
  wanted_strength = jnp.maximum(jnp.sqrt(jnp.square(wanted).sum()), 1e-3)
  correlation = product / (wanted_strength * jnp.maximum(strength, 1e-3))
  return correlation * jnp.sqrt(jnp.minimum(strength / wanted_strength, 1))
