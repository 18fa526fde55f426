"""Reading a crop by TensorFlow's operations, which hold no interpreter lock; of a JPEG only what is needed is decoded.

The geometry is that of `input_pipeline.crops`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from input_pipeline.sampling import PairSampler

Stored = dict[str, tf.Tensor]  # See `fetcher`.


def fetcher(sampler: PairSampler) -> Callable[[list[tf.Tensor]], list[Stored]]:
  """A function that reads what is stored of some rows of the sampler's tables, in one call into Python.

  For rows, int32 [n], it returns n times what is stored, as tensors by name: "data", a JPEG file or raw grey levels;
  "shape" int32 [2], (height, width) of raw grey levels or zeros for a JPEG; "origin" float32 [2], (x, y) of the first
  pixel in the frame; "mean" float32 [], the frame's mean grey level or NaN where the data are the whole frame.
  """

  def read(row: int) -> tuple[bytes, tuple[int, ...], tuple[int, int], float]:
    frames, t = sampler.frame(row)
    encoded = frames.encoded(t)
    if encoded is not None:
      return encoded.jpeg, (0, 0), (encoded.x, encoded.y), np.nan if encoded.mean is None else encoded.mean
    stored = frames.cutout(t)
    mean = np.nan if stored.mean is None else stored.mean
    return stored.image.tobytes(), stored.image.shape, (stored.x, stored.y), mean

  def read_all(rows: np.ndarray) -> tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray]:
    data, shapes, origins, means = zip(*map(read, rows), strict=True)
    return list(data), np.array(shapes, np.int32), np.array(origins, np.float32), np.array(means, np.float32)

  def fetch(rows: list[tf.Tensor]) -> list[Stored]:
    types = {"data": (tf.string, []), "shape": (tf.int32, [2]), "origin": (tf.float32, [2]), "mean": (tf.float32, [])}
    values = tf.numpy_function(read_all, [rows], [dtype for dtype, _ in types.values()], stateful=False)
    stored = {name: tf.ensure_shape(value, [len(rows), *shape])
              for value, (name, (_, shape)) in zip(values, types.items(), strict=True)}
    return [{name: value[i] for name, value in stored.items()} for i in range(len(rows))]

  return fetch


def region(stored: Stored, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Decodes the part under a window.

  Args:
    stored: what a fetcher returned.
    window: float32 [3] (centre x, centre y, side) in frame pixels.

  Returns:
    uint8 [h, w, 1]; int32 [2] (x, y) of its first pixel in what is stored; float32 [] the grey level around.
  """
  is_raw = stored["shape"][0] > 0
  shape = tf.cond(is_raw, lambda: stored["shape"], lambda: tf.io.extract_jpeg_shape(stored["data"])[:2])
  centre, half = window[:2] - stored["origin"], window[2] / 2
  # One pixel more on each side, for the interpolation.
  first = tf.cast(tf.floor(centre - half), tf.int32) - 1
  last = tf.cast(tf.math.ceil(centre + half), tf.int32) + 2
  inside = tf.reduce_all(first >= 0) & tf.reduce_all(last <= shape[::-1])
  first, last = tf.clip_by_value(first, 0, shape[::-1]), tf.clip_by_value(last, 0, shape[::-1])
  x, y, w, h = first[0], first[1], last[0] - first[0], last[1] - first[1]

  def whole() -> tf.Tensor:
    return tf.cond(is_raw, lambda: tf.reshape(tf.io.decode_raw(stored["data"], tf.uint8), [shape[0], shape[1], 1]),
                   lambda: tf.io.decode_jpeg(stored["data"], channels=1, dct_method="INTEGER_ACCURATE"))

  def part() -> tf.Tensor:
    return tf.cond(is_raw, lambda: whole()[y:y + h, x:x + w], lambda: tf.io.decode_and_crop_jpeg(
        stored["data"], [y, x, h, w], channels=1, dct_method="INTEGER_ACCURATE"))

  # The window leaves a whole frame: its mean grey level is needed, so all of it is decoded.
  def part_and_mean() -> tuple[tf.Tensor, tf.Tensor]:
    image = whole()
    return image[y:y + h, x:x + w], tf.reduce_mean(tf.cast(image, tf.float32))

  unknown = tf.math.is_nan(stored["mean"])

  def known_part() -> tuple[tf.Tensor, tf.Tensor]:
    image = tf.cond((w > 0) & (h > 0), part, lambda: tf.zeros([0, 0, 1], tf.uint8))
    return image, tf.where(unknown, 0.0, stored["mean"])

  image, around = tf.cond(inside | ~unknown, known_part, part_and_mean)
  return image, first, around


def resample(image: tf.Tensor, first: tf.Tensor, around: tf.Tensor, stored: Stored, window: tf.Tensor,
             side: int) -> tf.Tensor:
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


def read_crops(fetch: Callable[[list[tf.Tensor]], list[Stored]], plan: Mapping[str, tf.Tensor],
               sides: Mapping[str, int]) -> dict[str, tf.Tensor]:
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
          for (name, side), data, window in zip(sides.items(), stored, windows, strict=True)}
