"""Infrared augmentation of a pair: what sensors, optics and gain control do to the same scene (our choice).

Both crops of a pair come from one camera, so geometry and polarity flip together; noise, blur and gain differ, since
the frames are moments apart. All randomness comes from one seed: equal seeds, equal pixels.
"""

import cv2
import ml_collections
import numpy as np


def augment_pair(template: np.ndarray, search: np.ndarray, box_ltrb: np.ndarray, seed: int,
                 config: ml_collections.ConfigDict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Augments one pair.

  Args:
    template: float32 [St, St], grey levels 0..255.
    search: float32 [Ss, Ss].
    box_ltrb: [4] the target's sides in search-crop coordinates.
    seed: of everything random in here.
    config: `config.data.augment`: a probability per effect, see configs/base.py.

  Returns:
    The template, the search crop (float32, 0..255) and the box.
  """
  rng = np.random.Generator(np.random.Philox(key=seed))
  if rng.random() < config.flip:
    template, search = template[:, ::-1], search[:, ::-1]
    side = search.shape[1]
    box_ltrb = np.array([side - box_ltrb[2], box_ltrb[1], side - box_ltrb[0], box_ltrb[3]])
  if rng.random() < config.polarity:  # White-hot and black-hot cameras.
    template, search = 255 - template, 255 - search
  return _sensor(rng, template, config), _sensor(rng, search, config), box_ltrb


def _sensor(rng: np.random.Generator, image: np.ndarray, config) -> np.ndarray:
  image = np.ascontiguousarray(image, np.float32)
  side = image.shape[0]
  if rng.random() < config.fade:  # Thermal crossover: the whole contrast shrinks about the mean.
    image = image.mean() + (image - image.mean()) * np.float32(rng.uniform(0.35, 1.0))
  if rng.random() < config.gain:  # Automatic gain control drifts.
    image = (image - 128) * np.float32(np.exp(rng.uniform(-0.35, 0.35))) + np.float32(128 + rng.uniform(-40, 40))
  if rng.random() < config.blur:  # Defocus, or motion along an axis.
    sigma = rng.uniform(0.3, 0.02 * side)
    along = rng.integers(3)
    image = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma if along != 1 else 0.1, sigmaY=sigma if along != 2 else 0.1)
  if rng.random() < config.noise:
    image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 8))
  if rng.random() < config.stripes:  # Column gains of a line readout.
    image = image + rng.standard_normal((1, side), np.float32) * np.float32(rng.uniform(1, 5))
  if rng.random() < config.dead_pixels:
    count = int(rng.integers(1, 6))
    rows, columns = rng.integers(0, side, (2, count))
    image = image.copy()
    image[rows, columns] = rng.choice([0, 255], count)
  return np.clip(image, 0, 255)
