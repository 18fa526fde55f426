"""Reading a crop by TensorFlow's operations, which hold no interpreter lock; of a JPEG only what is needed is decoded.

The geometry is that of `input_pipeline.crops`.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.errors import UserError
from input_pipeline.sampling import PairSampler


def fetcher(sampler: PairSampler):
  """A function that reads what is stored of some rows of the sampler's tables, in one call into Python.

  For int32 [n] it returns n dicts of tensors: "data", a JPEG file or raw grey levels; "shape" int32 [2], (height,
  width) of raw grey levels or zeros for a JPEG; "origin" float32 [2], (x, y) of the first pixel in the frame; "mean"
  float32 [], the frame's mean grey level or NaN where the data are the whole frame.
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
    return data, shape, (stored.x, stored.y), np.nan if stored.mean is None else stored.mean

  def read_all(rows):
    try:
      data, shapes, origins, means = zip(*map(read, rows))
    except UserError as error:
      raise ValueError(str(error)) from error  # `pipeline.batches` finds the file again.
    return list(data), np.array(shapes, np.int32), np.array(origins, np.float32), np.array(means, np.float32)

  def fetch(rows):
    types = {"data": (tf.string, []), "shape": (tf.int32, [2]), "origin": (tf.float32, [2]), "mean": (tf.float32, [])}
    values = tf.numpy_function(read_all, [rows], [dtype for dtype, _ in types.values()], stateful=False)
    stored = {name: tf.ensure_shape(value, [len(rows), *shape]) for value, (name, (_, shape)) in zip(
        values, types.items())}
    return [{name: value[i] for name, value in stored.items()} for i in range(len(rows))]

  return fetch


def region(stored: dict, window):
  """Decodes the part under a window.

  Args:
    stored: what a fetcher returned.
    window: float32 [3] (centre x, centre y, side) in frame pixels.

  Returns:
    uint8 [h, w, 1]; int32 [2] (x, y) of its first pixel in what is stored; float32 [] the grey level around.
  """
  is_raw = stored["shape"][0] > 0
  size = tf.cond(is_raw, lambda: stored["shape"], lambda: tf.io.extract_jpeg_shape(stored["data"])[:2])
  centre, half = window[:2] - stored["origin"], window[2] / 2
  # One pixel more on each side, for the interpolation.
  first = tf.cast(tf.floor(centre - half), tf.int32) - 1
  last = tf.cast(tf.math.ceil(centre + half), tf.int32) + 2
  inside = tf.reduce_all(first >= 0) & tf.reduce_all(last <= size[::-1])
  first, last = tf.clip_by_value(first, 0, size[::-1]), tf.clip_by_value(last, 0, size[::-1])
  x, y, w, h = first[0], first[1], last[0] - first[0], last[1] - first[1]

  def whole():
    return tf.cond(is_raw, lambda: tf.reshape(tf.io.decode_raw(stored["data"], tf.uint8), [size[0], size[1], 1]),
                   lambda: tf.io.decode_jpeg(stored["data"], channels=1, dct_method="INTEGER_ACCURATE"))

  def part():
    return tf.cond(is_raw, lambda: whole()[y:y + h, x:x + w], lambda: tf.io.decode_and_crop_jpeg(
        stored["data"], [y, x, h, w], channels=1, dct_method="INTEGER_ACCURATE"))

  def part_and_mean():  # The window leaves a whole frame: its mean grey level is needed, so all of it is decoded.
    image = whole()
    return image[y:y + h, x:x + w], tf.reduce_mean(tf.cast(image, tf.float32))

  unknown = tf.math.is_nan(stored["mean"])
  nothing = lambda: tf.zeros([0, 0, 1], tf.uint8)
  known_part = lambda: (tf.cond((w > 0) & (h > 0), part, nothing), tf.where(unknown, 0.0, stored["mean"]))
  image, around = tf.cond(inside | ~unknown, known_part, part_and_mean)
  return image, first, around


def resample(image, first, around, stored: dict, window, side: int):
  """The crop of a `region`: uint8 [side, side, 1]."""
  # A border of zeros about the mean: beyond the data, interpolation ends in the mean as OpenCV's does.
  levels = tf.pad(tf.cast(image, tf.float32) - around, [[1, 1], [1, 1], [0, 0]])
  limits = tf.cast(tf.shape(levels)[:2] - 1, tf.float32)[::-1]
  step = window[2] / side
  start = window[:2] - stored["origin"] + (0.5 - side / 2) * step - 0.5 - tf.cast(first, tf.float32) + 1
  end = start + (side - 1) * step
  box = tf.concat([(start / limits)[::-1], (end / limits)[::-1]], 0)
  crop = tf.image.crop_and_resize(levels[None], box[None], [0], [side, side])[0] + around
  return tf.cast(tf.clip_by_value(tf.round(crop), 0, 255), tf.uint8)


def read_crops(fetch, plan: dict, sides: dict[str, int]) -> dict:
  """The crops of one pair.

  Args:
    fetch: see `fetcher`.
    plan: "NAME_frame" int32 [], "NAME_window" float32 [3] for every NAME of `sides`.
    sides: {"template": pixels per side, "search": ...}.

  Returns:
    {NAME: uint8 [side, side, 1]}.
  """
  stored = fetch([plan[f"{name}_frame"] for name in sides])
  windows = [plan[f"{name}_window"] for name in sides]
  return {name: resample(*region(data, window), data, window, side)
          for (name, side), data, window in zip(sides.items(), stored, windows)}
