"""The tf.data pipeline: example indices -> batches of crops, in parallel, from any step on."""

from collections.abc import Iterator

import ml_collections
import numpy as np

from input_pipeline.augment import augment_pair
from input_pipeline.crops import crop, to_crop
from input_pipeline.errors import DataError
from input_pipeline.sampling import PairSampler


def example(sampler: PairSampler, config: ml_collections.ConfigDict, template_side: int, search_side: int, seed: int,
            index: int) -> dict[str, np.ndarray]:
  """Example `index` of the stream `seed`.

  Returns:
    "template" uint8 [St, St, 1] and "search" uint8 [Ss, Ss, 1] grey levels; "template_wh" float32 [2] the target's
    size in template-crop pixels (it is at the centre); "search_box_ltrb" float32 [4] its sides in search-crop
    coordinates (zero in a negative pair); "present" float32 [] 0 or 1.
  """
  pair = sampler(seed, index)
  frame = lambda which: sampler.sequences[which[0]].frames[which[1]]
  template = crop(frame(pair.template), pair.template_window, template_side)
  search = crop(frame(pair.search), pair.search_window, search_side)
  box = to_crop(pair.search_box, pair.search_window, search_side)
  template, search, box = augment_pair(template, search, box, pair.augment_seed, config.augment)
  pixels = lambda image: image.round().astype(np.uint8)[..., None]
  return {
      "template": pixels(template),
      "search": pixels(search),
      "template_wh": (pair.template_box[2:] * template_side / pair.template_window[2]).astype(np.float32),
      "search_box_ltrb": (box if pair.present else np.zeros(4)).astype(np.float32),
      "present": np.float32(pair.present),
  }


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

  Raises:
    DataError: a frame that cannot be read.
  """
  if batch_size % num_hosts:
    raise ValueError(f"batch size {batch_size} cannot be shared equally by {num_hosts} hosts")
  import tensorflow as tf  # Only here: nothing else of the project needs TensorFlow.
  tf.config.set_visible_devices([], "GPU")  # The accelerator belongs to JAX.

  share = batch_size // num_hosts
  spec = {"template": ((template_side, template_side, 1), tf.uint8),
          "search": ((search_side, search_side, 1), tf.uint8),
          "template_wh": ((2,), tf.float32), "search_box_ltrb": ((4,), tf.float32), "present": ((), tf.float32)}

  failed = []  # What tf.data would only pass on as text.

  def make(index):
    try:
      made = example(sampler, config, template_side, search_side, seed, int(index))
    except DataError as error:
      failed.append(error)
      raise
    return [made[key] for key in spec]

  def load(index):
    values = tf.numpy_function(make, [index], [dtype for _, dtype in spec.values()], stateful=False)
    for value, (shape, _) in zip(values, spec.values()):
      value.set_shape(shape)
    return dict(zip(spec, values))

  def indices(step):
    return step * batch_size + host * share + tf.range(share, dtype=tf.int64)

  dataset = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max // batch_size)
  dataset = dataset.map(indices).unbatch()
  dataset = dataset.map(load, num_parallel_calls=config.workers, deterministic=True)
  dataset = dataset.batch(share, drop_remainder=True).prefetch(2)
  options = tf.data.Options()
  options.autotune.enabled = False
  options.threading.private_threadpool_size = config.workers

  def values():
    try:
      yield from dataset.with_options(options).as_numpy_iterator()
    except tf.errors.OpError as error:
      raise (failed[0] if failed else error) from None

  return values()
