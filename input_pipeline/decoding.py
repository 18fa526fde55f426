"""Reading a crop by TensorFlow's operations, which hold no interpreter lock: of a JPEG only the rows needed are decoded.

The geometry is that of `input_pipeline.crops`.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.errors import DataError
from input_pipeline.sampling import PairSampler


def fetcher(sampler: PairSampler):
  """A function of a row of the sampler's tables.

  Returns, as tensors: the data (a JPEG file, or raw grey levels), int32 [2] the (height, width) of raw grey levels or
  zeros for a JPEG, float32 [2] the (x, y) of the first pixel in the frame, float32 [] the frame's mean grey level or
  NaN where the data are the whole frame.
  """

  def read(row):
    sequence, t = sampler.locate(row)
    frames = sampler.sequences[sequence].frames
    stored = frames.encoded(t)
    if stored is not None:
      data, shape = stored.jpeg, (0, 0)
    else:
      stored = frames.cutout(t)
      data, shape = stored.image.tobytes(), stored.image.shape
    mean = np.nan if stored.mean is None else stored.mean
    return data, np.int32(shape), np.float32([stored.x, stored.y]), np.float32(mean)

  def guarded(row):
    try:
      return read(row)
    except DataError as error:
      raise ValueError(str(error)) from error  # `pipeline.batches` finds the file again.

  def fetch(row):
    data, shape, origin, mean = tf.numpy_function(
        guarded, [row], [tf.string, tf.int32, tf.float32, tf.float32], stateful=False)
    return (tf.ensure_shape(data, []), tf.ensure_shape(shape, [2]), tf.ensure_shape(origin, [2]),
            tf.ensure_shape(mean, []))

  return fetch


def read_crop(fetch, row, window, side: int):
  """The crop of one frame: uint8 [side, side, 1]; `window` float32 [3] (centre x, centre y, side) in frame pixels."""
  data, raw_shape, origin, mean = fetch(row)
  centre, step = window[:2] - origin, window[2] / side
  is_raw = raw_shape[0] > 0
  size = tf.cond(is_raw, lambda: raw_shape, lambda: tf.io.extract_jpeg_shape(data)[:2])  # height, width
  # The part under the window, one pixel more for the interpolation.
  first = tf.cast(tf.floor(centre - window[2] / 2), tf.int32) - 1
  last = tf.cast(tf.math.ceil(centre + window[2] / 2), tf.int32) + 2
  inside = tf.reduce_all(first >= 0) & tf.reduce_all(last <= size[::-1])
  first, last = tf.clip_by_value(first, 0, size[::-1]), tf.clip_by_value(last, 0, size[::-1])
  x, y, w, h = first[0], first[1], last[0] - first[0], last[1] - first[1]

  def whole():
    return tf.cond(is_raw, lambda: tf.reshape(tf.io.decode_raw(data, tf.uint8), [size[0], size[1], 1]),
                   lambda: tf.io.decode_jpeg(data, channels=1, dct_method="INTEGER_ACCURATE"))

  def part():
    return tf.cond(is_raw, lambda: whole()[y:y + h, x:x + w], lambda: tf.io.decode_and_crop_jpeg(
        data, [y, x, h, w], channels=1, dct_method="INTEGER_ACCURATE"))

  def with_mean():  # The window leaves a whole frame: its mean grey level is needed, so all of it is decoded.
    image = whole()
    return image[y:y + h, x:x + w], tf.reduce_mean(tf.cast(image, tf.float32))

  empty = (w <= 0) | (h <= 0)
  known = inside | ~tf.math.is_nan(mean)
  fill = tf.where(tf.math.is_nan(mean), 0.0, mean)
  nothing = lambda: tf.zeros([1, 1, 1], tf.uint8)
  region, fill = tf.cond(known, lambda: (tf.cond(empty, nothing, part), fill), with_mean)
  region, first = tf.cond(empty, lambda: (nothing(), tf.constant([2**20, 2**20])), lambda: (region, first))
  # A border of zeros about the mean: beyond the data, interpolation ends in the mean as OpenCV's does.
  levels = tf.pad(tf.cast(region, tf.float32) - fill, [[1, 1], [1, 1], [0, 0]])
  limits = tf.cast(tf.shape(levels)[:2] - 1, tf.float32)[::-1]
  start = centre + (0.5 - side / 2) * step - 0.5 - tf.cast(first, tf.float32) + 1
  end = start + (side - 1) * step
  box = tf.concat([(start / limits)[::-1], (end / limits)[::-1]], 0)
  crop = tf.image.crop_and_resize(levels[None], box[None], [0], [side, side])[0] + fill
  return tf.cast(tf.clip_by_value(tf.round(crop), 0, 255), tf.uint8)
