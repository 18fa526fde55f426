"""The data set in accelerator memory: pairs are drawn, gathered and cropped inside the jitted step.

Nothing happens on the host per step, and TensorFlow is not needed. The pixels lie in one table of 128-byte units; a
stored part of a frame is a run of rows, each a whole number of units, so that a row is one contiguous read. The table
may be spread over `shards` devices: then each makes the crops whose frames it holds, for all of them, and a sum hands
them round (a crop is zero everywhere but where its frame is).
"""

import os
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax
from tqdm import tqdm

from input_pipeline import pipeline, sampling
from input_pipeline.errors import UserError
from input_pipeline.geometry import Array
from input_pipeline.records.reading import PackedCrops
from input_pipeline.sequences import Sequence
from siamdff_jax.parallel.layouts import AXIS

UNIT = 128  # Bytes. The width of a TPU's lanes; rows of small cutouts waste half of it on average.


@flax.struct.dataclass
class Places:
  """Where every frame's stored part lies. Arrays [N] of int32 but for `mean`; NumPy on the host, JAX in the step.

  Attributes:
    shard: which shard of the table holds it.
    unit: its first unit there.
    stride: units per row.
    x, y, width, height: the rectangle in the frame.
    mean: float32, the whole frame's mean grey level.
    size: units of a shard.
    widest: units of the widest row.
  """

  shard: Array
  unit: Array
  stride: Array
  x: Array
  y: Array
  width: Array
  height: Array
  mean: Array
  size: int = flax.struct.field(pytree_node=False)
  widest: int = flax.struct.field(pytree_node=False)


def places(sampler: sampling.PairSampler, shards: int) -> Places:
  """Lays the frames of the sampler's sequences (which must be packed) out over `shards` tables of equal size.

  Raises:
    UserError: the tables would be larger than can be addressed.
  """
  stored = [_packed(sequence) for sequence in sampler.sequences]
  x, y, width, height = np.concatenate([frames.rectangles for frames in stored]).T
  stride = -(-width // UNIT)
  units = (stride * height).astype(np.int64)
  ends = np.cumsum(units)
  # Frame by frame, in order, each table about as full as the others.
  shard = np.minimum((ends - units) * shards // ends[-1], shards - 1)
  begin = np.array([(ends - units)[shard == s].min(initial=ends[-1]) for s in range(shards)])
  unit = ends - units - begin[shard]
  size = int((unit + units).max())
  if size >= 2**31:
    raise UserError(f"{size * UNIT / 2**30:.0f} GiB of frames on a device: expected less than 256, raise "
                    "--config.data.resident_shards")
  arrays = dict(shard=shard, unit=unit, stride=stride, x=x, y=y, width=width, height=height)
  return Places(**{name: array.astype(np.int32) for name, array in arrays.items()},
                mean=np.concatenate([frames.means for frames in stored]), size=size, widest=int(stride.max()))


def table(sampler: sampling.PairSampler, where: Places, shard: int) -> np.ndarray:
  """Decodes one shard on all cores: uint8 [where.size, UNIT]."""
  out = np.zeros((where.size, UNIT), np.uint8)
  rows = np.flatnonzero(where.shard == shard)

  def fill(chunk: np.ndarray) -> int:
    for row in chunk:
      sequence, t = sampler.locate(row)
      image = _packed(sampler.sequences[sequence]).cutout(t).image
      height, stride, unit = len(image), where.stride[row], where.unit[row]
      view = out[unit:unit + height * stride].reshape(height, stride * UNIT)
      view[:, :image.shape[1]] = image
    return len(chunk)

  with (futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(rows), desc=f"load shard {shard}", unit="frame", delay=2) as progress):
    for count in pool.map(fill, np.array_split(rows, len(rows) // 256 + 1)):
      progress.update(count)
  return out


def crop(pixels: jax.Array, place: Places, window: jax.Array, side: int, units: int) -> jax.Array:
  """One crop, as `input_pipeline.crops.crop` makes it from the frame.

  Args:
    pixels: uint8 [size, UNIT].
    place: of one frame.
    window: float32 [3], centre x, centre y, side in frame pixels.
    side: pixels per side of the crop.
    units: the widest row in the table.

  Returns:
    float32 [side, side].
  """
  step = window[2] / side
  index = (jnp.arange(side) + 0.5 - side / 2) * step - 0.5
  x, y = window[0] - place.x + index, window[1] - place.y + index
  above = jnp.floor(y)
  rows = jnp.stack([above, above + 1])  # [2, side]
  weights = jnp.stack([above + 1 - y, y - above]) * ((rows >= 0) & (rows < place.height))
  rows = jnp.clip(rows, 0, place.height - 1).astype(jnp.int32)
  at = place.unit + rows[..., None] * place.stride + jnp.arange(units)  # [2, side, units]
  levels = pixels[jnp.minimum(at, len(pixels) - 1)].reshape(2, side, units * UNIT)
  levels = ((levels.astype(jnp.float32) - place.mean) * weights[..., None]).sum(0)  # [side, units * UNIT]
  columns = jnp.arange(units * UNIT)
  triangle = jnp.maximum(1 - jnp.abs(x[:, None] - columns), 0) * (columns < place.width)
  return jnp.matmul(levels, triangle.T, precision="highest") + place.mean


def _packed(sequence: Sequence) -> PackedCrops:
  assert isinstance(sequence.frames, PackedCrops)  # `sources.sampler` sees to it.
  return sequence.frames


def batch_of(sharded: Mapping[str, jax.Array], replicated: Mapping[str, Any], step: jax.Array,
             config: ml_collections.ConfigDict, shards: int, devices: int) -> dict[str, jax.Array]:
  """A device's part of a batch; a `prepare` of `parallel.layouts.Layout.compile`.

  Args:
    sharded: "slot" uint32 [b], which of the batch's examples; "pixels" uint8 [size, UNIT], this device's shard of the
      data, number axis_index % shards.
    replicated: "tables" of the sampler and "places".
    step: int32 [], steps taken before this one.
    config: the whole config.
    shards: neighbouring devices that hold one copy of the data together.
    devices: of the axis.

  Returns:
    As `input_pipeline.pipeline.example`, stacked.
  """
  slots: jax.Array = sharded["slot"]
  mine: slice | jax.Array = slice(None)
  groups = [list(range(first, first + shards)) for first in range(0, devices, shards)]
  shard = lax.axis_index(AXIS) % shards
  if shards > 1:
    slots = lax.all_gather(slots, AXIS, axis_index_groups=groups, tiled=True)
    mine = shard * len(sharded["slot"]) + jnp.arange(len(sharded["slot"]))
  index = step.astype(jnp.uint32) * config.train.batch_size + slots
  sides = config.model.template_side, config.model.search_side
  where: Places = replicated["places"]
  plan = sampling.draw(sampling.Tables(**replicated["tables"]), config.seed, index, config.data.pairs,
                       sides[1] / sides[0], jnp)
  out = {name: value[mine] for name, value in (pipeline.labels(plan, *sides, jnp) | {"index": index}).items()}
  for name, side in zip(("template", "search"), sides, strict=True):
    place = jax.tree.map(lambda x, rows=plan[f"{name}_frame"]: x[rows], where)
    crops = jax.vmap(lambda p, w, s=side: crop(sharded["pixels"], p, w, s, where.widest))(
        place, plan[f"{name}_window"])
    crops = jnp.clip(jnp.round(crops), 0, 255).astype(jnp.uint8)
    if shards > 1:
      crops = jnp.where((place.shard == shard)[:, None, None], crops, 0)
      crops = lax.psum_scatter(crops, AXIS, axis_index_groups=groups, tiled=True)
    out[name] = crops[..., None]
  return out
