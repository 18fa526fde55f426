"""Annotation files -> raw labels: JSON (the Anti-UAV family) and text (everybody else).

The parsers only read; what is mended is decided in `input_pipeline.sequences.from_labels`. A parser returns labels
or raises `UserError`, whatever bytes the file holds.
"""

import dataclasses
import math
import os
import re
import unicodedata
from collections.abc import Mapping

import numpy as np

from input_pipeline import units
from input_pipeline.datasets import grammar
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape

_SEPARATOR = re.compile(r"[ \t]*[,;][ \t]*|[ \t]+")
_BOX_KEYS = ("gt_rect", "gt")
_LARGEST = 1e7  # pixels; a number beyond it is no coordinate, and below it float32 keeps whole pixels apart.


class NoLabels(UserError):
  """A sequence without the label file that its format expects."""


@dataclasses.dataclass(frozen=True)
class Labels:
  """What one annotation file says, not yet checked against frames nor mended.

  Attributes:
    boxes: float32 [T, 4], xywh in pixels, 0-based; a row of NaN where the file says that there is no box.
    visible: bool [T'], or None when the file has no flags. T' can differ from T: whoever builds a sequence checks.
    where: the annotation file, for messages.
    attributes: attribute names.
    shape: of the frames, where the labels tell it.
    frame_labels: as in `Sequence.frame_labels`, [T''] each.
    lookalikes: as in `Sequence.lookalikes`, [M, 5].
  """

  boxes: np.ndarray
  visible: np.ndarray | None
  where: str
  attributes: tuple[str, ...] = ()
  shape: FrameShape | None = None
  frame_labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  lookalikes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 5), np.float32))


def read_bytes(path) -> bytes:
  """The content of a small file; UserError when it cannot be read."""
  try:
    with open(path, "rb") as file:
      return file.read()
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_json(path) -> Labels:
  """Reads `{"gt_rect": [[x,y,w,h], ...], "exist": [0/1, ...], "attributes": ["TC", ...]}`.

  The boxes can also stand under `gt` (CST Anti-UAV); an absent target is `[]`, `null`, NaN or `[0,0,0,0]`; `exist`
  and `attributes` can be missing. Our simulator adds `"lookalikes": [[frame, x, y, w, h], ...]`.

  Raises:
    UserError: unreadable, not JSON, or another structure than the one above, or boxes that are not in pixels.
  """
  where = os.fspath(path)
  try:
    data = grammar.parse_json(read_bytes(path))
  except (ValueError, RecursionError) as error:  # ValueError: bad JSON, bad encoding, numbers of > 4300 digits.
    raise UserError(f"{where}: not readable as JSON ({str(error)[:60]})") from error
  keys = [key for key in _BOX_KEYS if isinstance(data, dict) and key in data]
  if len(keys) != 1 or not isinstance(data[keys[0]], list):
    raise UserError(f'{where}: expected an object with a list of boxes [x,y,w,h] under the key "gt_rect" or "gt"')
  rows = [_json_row(where, t, row) for t, row in enumerate(data[keys[0]])]
  boxes = _in_pixels(where, rows)
  return Labels(boxes, _json_flags(where, data.get("exist")), where, _json_attributes(where, data.get("attributes")),
                lookalikes=_json_lookalikes(where, data.get("lookalikes", [])))


def read_text(path) -> Labels:
  """Reads one box `x,y,w,h` per line.

  See `grammar.box` for what a line may look like. A line of NaN (one or four) or of zeros means absent. A byte order
  mark, CRLF and blank lines at the end are accepted; a blank line between boxes is not, since nothing
  says whether it stands for an absent target or slipped in.

  Raises:
    UserError: unreadable, not UTF-8, a line that is not four numbers, or boxes that are not in pixels.
  """
  where = os.fspath(path)
  lines = text_lines(path)
  boxes = _in_pixels(where, [_text_row(where, number, line) for number, line in enumerate(lines, 1)])
  return Labels(boxes, None, where)


def read_flags(path, names) -> tuple[str, ...]:
  """Reads attribute flags (0 or 1, any separator, one or many lines) and returns the names of those set.

  A name of None stands for a number that is no flag and is not read.
  """
  tokens = _tokens(path)
  flags = [token for name, token in zip(names, tokens, strict=False) if name]
  if len(tokens) != len(names) or not set(flags) <= {"0", "1"}:
    order = ",".join(name or "(a number)" for name in names)
    raise UserError(f"{path}: expected {len(names)} flags (0 or 1) in the order {order}")
  return tuple(name for name, token in zip(names, tokens, strict=True) if name and token == "1")


def read_frame_labels(path, highest=1) -> np.ndarray:
  """Reads one whole number from 0 to `highest` per frame, int [T]: any separator, one or many lines."""
  tokens = _tokens(path)
  allowed = {str(value) for value in range(highest + 1)}
  wrong = next((t for t, token in enumerate(tokens) if token not in allowed), None)
  if wrong is not None:
    raise UserError(f"{path}: frame {wrong} has the label {grammar.short(tokens[wrong])}, expected 0 to {highest}")
  return np.array(tokens, int)


def read_names(path) -> list[str]:
  """The sequence names of a list file, one per line, in Unicode's composed form (NFC)."""
  return [unicodedata.normalize("NFC", line.strip()) for line in text_lines(path) if line.strip()]


def zero_based(found: Labels, origin: int) -> Labels:
  """The labels with x and y counted from 0 instead of from `origin`."""
  return dataclasses.replace(found, boxes=found.boxes - np.float32([origin, origin, 0, 0]))


def without_negative_sizes(found: Labels) -> Labels:
  """The labels with a zero box for every finite one of negative width or height, for benchmarks that have them."""
  negative = (found.boxes[:, 2:] < 0).any(axis=1) & np.isfinite(found.boxes).all(axis=1)
  return dataclasses.replace(found, boxes=np.where(negative[:, None], np.float32(0), found.boxes))


def text_lines(path) -> list[str]:
  """The lines of a UTF-8 text file without those that are blank at its end."""
  try:
    text = read_bytes(path).decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: not a UTF-8 text file") from error
  return grammar.lines(text)


def _tokens(path) -> list[str]:
  return [token for line in text_lines(path) for token in _SEPARATOR.split(line.rstrip(",;")) if token]


def _text_row(where, number, line) -> list[float]:
  row = [math.nan] * 4 if line.lower() == "nan" else grammar.box(line)
  if row is None:
    raise UserError(f"{where}: line {number} is {grammar.short(line)}, expected four numbers x,y,w,h")
  return _in_range(row, f"{where}: line {number}")


def _json_row(where, t, row) -> list[float]:
  if row is None or row == [] or (isinstance(row, float) and math.isnan(row)):
    return [np.nan] * 4
  if not isinstance(row, list) or len(row) != 4 or not all(_is_number(value) for value in row):
    raise UserError(f"{where}: frame {t} has the box {grammar.short(row)}, expected [x,y,w,h] or []")
  return _in_range(row, f"{where}: frame {t}")


def _in_range(row, where) -> list[float]:
  if any(abs(value) > _LARGEST and abs(value) != math.inf for value in row):  # Infinity is from_labels' to report.
    raise UserError(f"{where} has the box {grammar.short(row)}, expected pixel coordinates")
  return row


def _in_pixels(where, rows) -> np.ndarray:
  """float32 [T, 4]; boxes in shares of the frame are refused here, before a format counts them from 0."""
  if units.is_normalised(rows):
    raise UserError(f"{where}: all boxes are shares of the frame (normalised, 0 to 1), expected x,y,w,h in pixels, x,y "
                    "being the top left corner")
  return np.array(rows, np.float32).reshape(-1, 4)


def _json_flags(where, flags):
  if flags is None:
    return None
  if not isinstance(flags, list) or not all(_is_number(flag, bools=True) and flag in (0, 1) for flag in flags):
    raise UserError(f'{where}: expected a list of 0 and 1, one per frame, under the key "exist"')
  return np.array(flags, bool)


def _json_attributes(where, names) -> tuple[str, ...]:
  if names is None:
    return ()
  if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
    raise UserError(f'{where}: expected a list of names under the key "attributes"')
  return tuple(names)


def _json_lookalikes(where, rows) -> np.ndarray:
  if not isinstance(rows, list):
    raise UserError(f'{where}: expected a list of [frame,x,y,w,h] under the key "lookalikes"')
  for row in rows:
    if not isinstance(row, list) or len(row) != 5 or not all(_is_number(value) for value in row):
      raise UserError(f"{where}: a look-alike {grammar.short(row)}, expected [frame,x,y,w,h]")
    _in_range(row, f"{where}: a look-alike")
  return np.array(rows, np.float32).reshape(-1, 5)


def _is_number(value, bools=False) -> bool:
  return isinstance(value, (int, float)) and (bools or not isinstance(value, bool))
