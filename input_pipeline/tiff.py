"""The pages of a TIFF file, and how each asks to be turned. OpenCV decodes them, but turns them without a word."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

SUFFIXES = (".tif", ".tiff")
_SUBFILE_TYPE, _PHOTOMETRIC, _ORIENTATION = 254, 262, 274  # Tags of TIFF 6.0.
_REDUCED = 1  # Bit of the subfile type: a smaller copy of another page.
_MOST_PAGES, _MOST_ENTRIES = 10_000_000, 65_535  # More than that is damage.
# How a page of orientation 1 to 8 is turned back to the pixels as stored after it was turned as it asks.
_BACK = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: lambda x: np.rot90(x, -1),
}


class Page(NamedTuple):
  """One image of a file.

  Attributes:
    number: among all of the file's images.
    orientation: its tag, 1 to 8.
    white_is_zero: whether small numbers are bright.
  """

  number: int
  orientation: int = 1
  white_is_zero: bool = False

  def as_stored(self, image: np.ndarray) -> np.ndarray:
    """Turns a decoded page, which OpenCV has turned as its tag asks, back to the pixels as stored; bright is large."""
    if self.white_is_zero and image.dtype.kind in "iu" and image.dtype.itemsize > 1:  # OpenCV has done it for 8 bits.
      image = np.iinfo(image.dtype).max - image
    return np.ascontiguousarray(_BACK[self.orientation](image))


def pages(path: str) -> tuple[list[Page], bool]:
  """The pages of a file in order, without reduced copies of other pages, and whether these are all that it announces.

  A file that cannot be read, or is no TIFF file, has none.
  """
  found = []
  try:
    with open(path, "rb") as file:
      for page in _pages(file):
        found.append(page)
  except (OSError, struct.error, KeyError, ValueError, OverflowError):
    return found, False
  return found, True


def _pages(file: BinaryIO) -> Iterator[Page]:
  order = {b"II": "<", b"MM": ">"}[file.read(2)]
  version = _read(file, order + "H")
  # Classic files have offsets of 4 bytes, BigTIFF of 8.
  offset_form, count_form, entry_size, value_at = {42: ("I", "H", 12, 8), 43: ("Q", "Q", 20, 12)}[version]
  if version == 43:
    _read(file, order + "HH")
  seen: set[int] = set()
  offset = _read(file, order + offset_form)
  while offset:
    if offset in seen or len(seen) == _MOST_PAGES:
      raise ValueError("the chain of pages has a loop")
    seen.add(offset)
    file.seek(offset)
    count = _read(file, order + count_form)
    if count > _MOST_ENTRIES:
      raise ValueError("the count of a page's entries is damaged")
    entries = file.read(count * entry_size)
    values = {}
    for start in range(0, count * entry_size, entry_size):
      tag, kind = struct.unpack_from(order + "HH", entries, start)
      if tag in (_SUBFILE_TYPE, _PHOTOMETRIC, _ORIENTATION):
        values[tag] = struct.unpack_from(order + {3: "H", 4: "I"}[kind], entries, start + value_at)[0]
    if not values.get(_SUBFILE_TYPE, 0) & _REDUCED:
      turned = values.get(_ORIENTATION, 1)
      yield Page(len(seen) - 1, turned if turned in _BACK else 1, values.get(_PHOTOMETRIC) == 0)
    offset = _read(file, order + offset_form)


def _read(file: BinaryIO, form: str) -> int:
  data = file.read(struct.calcsize(form))
  return struct.unpack(form, data)[0]
