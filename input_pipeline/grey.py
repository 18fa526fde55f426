"""Decoded pixels of any kind -> grey levels of 8 bits.

Colour is converted by OpenCV's luma weights. What is deeper than 8 bits (counts of a radiometric camera, temperatures)
is mapped linearly: the 0.1 and 99.9 percentiles of the sequence's first frame become 0 and 255; where these lie far
from nearly all pixels, twice the range of the 5 and 95 percentiles does. In later frames the same span is kept, moved
by as much as the frame's middle grey level differs from the first one's, since the level of a thermal camera drifts
with its own temperature, and jumps when its shutter closes. The span stays: a map of its own for each frame would
flicker. (Our choice; measured in docs/inputs.md.) A map depends on its frame and on the first one alone, so frames can
be read in any order.
"""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from input_pipeline.errors import UserError

log = logging.getLogger(__name__)

_PERCENTILES = (0.1, 5, 95, 99.9)  # The outer ones are the map's ends; most pixels lie between the inner ones.
_EVERY = 4  # Of the rows and columns, for the middle grey level: enough of them, and a sixteenth of the time.
_MARGIN = 25.5  # Grey levels beyond the ends that may be cut off unsaid: a tenth of the span.
_OUTSIDE = 0.05  # Share of a frame's pixels beyond both ends of the map that is said.
_FAR = 20  # Times the span of most pixels, beyond which few pixels do not stretch the map.
_SEARCHED = 100  # Frames in which one with any contrast is looked for to make the map of.


@dataclasses.dataclass(frozen=True)
class _Map:
  """Grey levels `low` to `high` become 0 to 255 in a frame whose middle is `middle`; others' are moved along."""

  low: float
  high: float
  middle: float

  @property
  def span(self) -> float:
    return self.high - self.low or 1.0


class ToGrey8:
  """Converts the frames of one sequence to uint8 [H, W], and says once what it does. Safe to call from threads.

  Args:
    where: the sequence, for messages.
    decoded: a function that decodes those frames in order that can be; asked where they are deeper than 8 bits.
  """

  def __init__(self, where: str, decoded: Callable[[], Iterator[np.ndarray]]):
    self._where, self._decoded = where, decoded
    self._map: _Map | None = None
    self._kind: np.dtype | None = None
    self._said: set[str] = set()

  def __call__(self, image: np.ndarray, t: int) -> np.ndarray:
    """Frame `t` as decoded, [H, W], [H, W, 1], [H, W, 3] (BGR) or [H, W, 4], of any type of numbers.

    Raises:
      UserError: the frame's type is not that of the frames before: they would not be comparable.
    """
    image = self._one_channel(image)
    self._kind = self._kind or image.dtype
    if image.dtype != self._kind:
      raise UserError(f"{self._where}: frame {t} has pixels of type {image.dtype}, others of {self._kind}; expected "
                      "one type in a sequence")
    if image.dtype == np.uint8:
      return image
    if self._map is None:
      self._map = self._of_first_frame()
    finite = np.isfinite(image) if image.dtype.kind == "f" else None
    if finite is not None and finite.all():
      finite = None
    middle = _middle(image, finite)
    low = self._map.low + (0.0 if middle is None else middle - self._map.middle)
    exact: type[np.floating] = np.float64 if image.dtype.itemsize > 2 else np.float32
    levels = (image.astype(exact) - low) * (255.0 / self._map.span)
    if finite is not None:
      self.say("not finite", f"{int((~finite).sum())} of {finite.size} pixels of frame {t} are no finite numbers; NaN "
                             "is taken for the middle grey level of its frame, infinities for the ends of the map")
      levels[np.isnan(levels)] = ((middle or low) - low) * (255.0 / self._map.span)
    outside = ((levels < -_MARGIN) | (levels > 255 + _MARGIN))[::_EVERY, ::_EVERY].mean()
    if outside > _OUTSIDE:
      self.say("outside", f"{100 * outside:.0f} % of the pixels of frame {t} lie outside of the grey levels that are "
                          "told apart, which are those of the first frame: they become black or white")
    return np.clip(levels, 0, 255).round().astype(np.uint8)

  def say(self, kind: str, text: str) -> None:
    """Logs a sentence about this sequence, one of each kind."""
    if kind not in self._said:
      self._said.add(kind)
      log.info("%s: %s", self._where, text)

  def _one_channel(self, image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
      return image
    if image.shape[2] == 1:
      return image[..., 0]
    self.say("colour", "colour frames, converted to grey")
    colour = np.ascontiguousarray(image[..., :3])
    known = colour.dtype in (np.uint8, np.uint16, np.float32)  # To OpenCV.
    return cv2.cvtColor(colour if known else colour.astype(np.float32), cv2.COLOR_BGR2GRAY)

  def _of_first_frame(self) -> _Map:
    """The map of the first frame that shows anything: a camera may begin with its shutter closed."""
    found = _Map(0.0, 1.0, 0.0)
    for image in itertools.islice(self._decoded(), _SEARCHED):
      image = self._one_channel(image)
      values = image[np.isfinite(image)].astype(np.float64)
      if values.size:
        low, most_low, most_high, high = (float(v) for v in np.percentile(values, _PERCENTILES))
        span = most_high - most_low
        if 0 < _FAR * span < high - low:
          self.say("far", f"a few pixels lie far from the others ({low:g}..{high:g}, most are in {most_low:g}.."
                          f"{most_high:g}) and become black or white (telemetry? marks for missing values?)")
          low, high = most_low - span / 2, most_high + span / 2
        middle = _middle(image, np.isfinite(image))
        assert middle is not None  # Some values are finite.
        found = _Map(low, high, middle)
        if high > low:
          break
    self.say("depth", f"{image.dtype} frames, mapped to 8 bits by grey levels {found.low:g}..{found.high:g}, which "
                      "move along with each frame's middle level")
    return found


def _middle(image: np.ndarray, finite: np.ndarray | None) -> float | None:
  """The mean of the grey levels between a frame's quartiles; None where no pixel is finite.

  A median would come in whole counts, which shows where all of a sky lies within a few of them.
  """
  part = (slice(None, None, _EVERY),) * 2
  values = image[part].ravel() if finite is None else image[part][finite[part]]
  if not values.size:
    return None if finite is None or not finite.any() else float(np.mean(image[finite], dtype=np.float64))
  low, high = np.percentile(values, (25, 75))
  return float(np.mean(values[(values >= low) & (values <= high)], dtype=np.float64))
