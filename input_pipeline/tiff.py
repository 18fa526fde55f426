"""The pages of a TIFF file, and how each asks to be turned. OpenCV decodes them, but turns them without a word."""

import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from input_pipeline.errors import DataError

SUFFIXES = (".tif", ".tiff")
_SUBFILE_TYPE, _ORIENTATION = 254, 274  # Tags of TIFF 6.0.
_REDUCED = 1  # Bit of the subfile type: a smaller copy of another page.
_MOST_PAGES, _MOST_ENTRIES = 10_000_000, 65_535  # More than that is damage.
# How a page of orientation 1 to 8 is turned back to the pixels as stored after it was turned as it asks.
_BACK = {
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: lambda x: np.rot90(x, -1),
}


class Page(NamedTuple):
  """One image of a file: its number among all of the file's images, and its orientation tag, 1 to 8."""

  number: int
  orientation: int

  def as_stored(self, image: np.ndarray) -> np.ndarray:
    """Turns a decoded page, which OpenCV has turned as its tag asks, back to the pixels as stored."""
    return np.ascontiguousarray(_BACK[self.orientation](image))


def pages(path: str) -> list[Page]:
  """The pages of a file in order, without reduced copies of other pages.

  Raises:
    DataError: no such file, not a TIFF file, or one that ends before the pages that it announces.
  """
  try:
    with open(path, "rb") as file:
      return _pages(file)
  except OSError as error:
    raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
  except (struct.error, KeyError, ValueError, OverflowError) as error:
    raise DataError(f"{path}: not a readable image (truncated or corrupt TIFF file)") from error


def _pages(file: BinaryIO) -> list[Page]:
  order = {b"II": "<", b"MM": ">"}[file.read(2)]
  version = _read(file, order + "H")
  # Classic files have offsets of 4 bytes, BigTIFF of 8.
  offset_form, count_form, entry_size, value_at = {42: ("I", "H", 12, 8), 43: ("Q", "Q", 20, 12)}[version]
  if version == 43:
    _read(file, order + "HH")
  found, seen, offset = [], set(), _read(file, order + offset_form)
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
      if tag in (_SUBFILE_TYPE, _ORIENTATION):
        values[tag] = struct.unpack_from(order + {3: "H", 4: "I"}[kind], entries, start + value_at)[0]
    if not values.get(_SUBFILE_TYPE, 0) & _REDUCED:
      turned = values.get(_ORIENTATION, 1)
      found.append(Page(len(seen) - 1, turned if turned in _BACK else 1))
    offset = _read(file, order + offset_form)
  return found


def _read(file: BinaryIO, form: str) -> int:
  data = file.read(struct.calcsize(form))
  return struct.unpack(form, data)[0]
