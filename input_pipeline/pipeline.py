"""The host's input: example indices -> batches of crops, by tf.data, from any step on.

A host only reads, decodes and crops. Augmentation is the step's part (`siamdff_jax.feeding.augment`), so that it exists
once for every way to feed and costs the host nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import ml_collections
import numpy as np

from input_pipeline.crops import crop
from input_pipeline.geometry import Array, to_crop
from input_pipeline.sampling import PairSampler

if TYPE_CHECKING:
  import tensorflow as tf


def labels(plan: Mapping[str, Array], template_side: int, search_side: int, xp: ModuleType = np) -> dict[str, Array]:
  """What a plan of pairs (see `sampling.draw`) says besides the pixels, in crop coordinates.

  Returns:
    "template_wh" float32 [n, 2] the target's size in template-crop pixels (it is at the centre); "search_box_ltrb"
    float32 [n, 4] its sides in search-crop coordinates (zero in a negative pair); "present" float32 [n] 0 or 1.
  """
  present = plan["present"].astype(xp.float32)
  scale = template_side / plan["template_window"][:, 2:]
  box = to_crop(plan["search_box"], plan["search_window"], search_side)
  return {"template_wh": (plan["template_box"][:, 2:] * scale).astype(xp.float32),
          "search_box_ltrb": (box * present[:, None]).astype(xp.float32), "present": present}


def example(sampler: PairSampler, template_side: int, search_side: int, seed: int, index: int) -> dict[str, np.ndarray]:
  """Example `index` of the stream `seed`, by numpy and OpenCV: the definition that every faster path must equal.

  Returns:
    "template" uint8 [St, St, 1] and "search" uint8 [Ss, Ss, 1] grey levels; "template_wh", "search_box_ltrb",
    "present" as `labels` without the first axis; "index" uint32 [].
  """
  plan = sampler.plan(seed, [index])
  sides = {"template": template_side, "search": search_side}
  made = {name: _pixels(sampler, plan[f"{name}_frame"][0], plan[f"{name}_window"][0], side)
          for name, side in sides.items()}
  described = labels(plan, template_side, search_side)
  return made | {name: value[0] for name, value in described.items()} | {"index": np.uint32(index)}


def _pixels(sampler: PairSampler, row: int, window: np.ndarray, side: int) -> np.ndarray:
  frames, t = sampler.frame(row)
  stored = frames.cutout(t)
  x, y, reach = window.astype(np.float64)
  image = crop(stored.image, np.array([x - stored.x, y - stored.y, reach]), side, stored.mean)
  return image.round().clip(0, 255).astype(np.uint8)[..., None]


def batches(sampler: PairSampler, config: ml_collections.ConfigDict, *, template_side: int, search_side: int,
            seed: int, batch_size: int, start_step: int = 0, host: int = 0, num_hosts: int = 1
            ) -> Iterator[dict[str, np.ndarray]]:
  """The endless stream of this host's share of every batch.

  Batch `n` of the run holds the examples n*batch_size .. (n+1)*batch_size - 1; host h of H takes the h-th of H equal
  slices of them, so hosts never overlap and together see the same batches as one host would.

  Args:
    sampler: which pairs.
    config: `config.data`.
    template_side, search_side: crop sides in pixels.
    seed: of the stream.
    batch_size: of the whole run (all hosts).
    start_step: the first batch to yield; costs nothing.
    host, num_hosts: which share.

  Returns:
    Batches of `example`s, equal to it within one grey level.

  Raises:
    UserError: a frame that cannot be read.
  """
  if batch_size % num_hosts:
    raise ValueError(f"batch size {batch_size} cannot be shared equally by {num_hosts} hosts")
  share = batch_size // num_hosts

  def indices(step: int) -> np.ndarray:
    return np.arange(share, dtype=np.int64) + (int(step) * batch_size + host * share)

  dataset = _dataset(sampler, config.workers, (template_side, search_side), seed, share, start_step, indices)

  def values() -> Iterator[dict[str, np.ndarray]]:
    import tensorflow as tf
    step = start_step
    try:
      for batch in dataset.as_numpy_iterator():
        yield batch
        step += 1
    except tf.errors.OpError:
      # tf.data knows neither the file nor what was expected of it; the plain way does, if data are at fault.
      for n in (step, *range(step + 1, step + 4)):  # Some batches are under way when one fails.
        for index in indices(n):
          example(sampler, template_side, search_side, seed, index)
      raise

  return values()


def _dataset(sampler: PairSampler, workers: int, sides: tuple[int, int], seed: int, share: int, start_step: int,
             indices: Callable[[int], np.ndarray]) -> "tf.data.Dataset":
  """The tf.data graph: a plan per batch, then reading, decoding and cropping each pair in parallel."""
  import tensorflow as tf  # Only here: nothing else of the project needs TensorFlow.

  from input_pipeline import decoding

  tf.config.set_visible_devices([], "GPU")  # The accelerator belongs to JAX.
  described = {"template_wh": (tf.float32, [2]), "search_box_ltrb": (tf.float32, [4]), "present": (tf.float32, [])}
  geometry = {"template_frame": (tf.int32, []), "search_frame": (tf.int32, []),
              "template_window": (tf.float32, [3]), "search_window": (tf.float32, [3])}
  spec = geometry | described | {"index": (tf.uint32, [])}

  def make_plan(step: int) -> list[np.ndarray]:
    index = indices(step)
    plan = sampler.plan(seed, index)
    made = plan | labels(plan, *sides) | {"index": index.astype(np.uint32)}
    return [made[name] for name in spec]

  def plan(step: tf.Tensor) -> dict[str, tf.Tensor]:
    values = tf.numpy_function(make_plan, [step], [dtype for dtype, _ in spec.values()], stateful=False)
    return {name: tf.ensure_shape(value, [share, *shape])
            for value, (name, (_, shape)) in zip(values, spec.items(), strict=True)}

  fetch = decoding.fetcher(sampler)

  def pixels(plan: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    crops = decoding.read_crops(fetch, plan, {"template": sides[0], "search": sides[1]})
    return crops | {name: plan[name] for name in (*described, "index")}

  as_written = tf.autograph.experimental.do_not_convert  # AutoGraph would take seconds to find nothing to convert.
  dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max).map(as_written(plan)).unbatch()
  dataset = dataset.map(as_written(pixels), num_parallel_calls=workers, deterministic=True)
  options = tf.data.Options()
  options.autotune.enabled = False
  options.threading.private_threadpool_size = workers
  return dataset.batch(share, drop_remainder=True).prefetch(2).with_options(options)
