"""One result file -> `Result`: Anti-UAV's JSON and text tables.

JSON: `{"res": [[x,y,w,h] or [] ...]}` or the bare list; an entry of no or one number (`[]`, `[0]`, `0`) means absent,
**four zeros are a prediction**.

Text: one box a line, four decimal numbers with commas, semicolons, tabs or blanks between them and at most one
separator after the last. A text table has no official way to say "absent"; four NaN are taken as that (our choice:
they can mean nothing else, and the official scripts make the whole score NaN). A table whose first line is the single
number 1 is in the form of the VOT toolkits (also written by pysot and got10k): 1 is a frame in which the tracker was
started, 2 one in which it failed, 0 one that was skipped before the next start.
"""

import itertools
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.datasets import grammar
from input_pipeline.datasets.grammar import short
from input_pipeline.datasets.labels import read_bytes
from input_pipeline.errors import UserError
from siamdff_jax.results.result import Result

BOX_FORMS = ("xywh", "xyxy")
_LARGEST = 1e7  # Pixels; a number beyond it is no coordinate.
_REGULAR = b"0123456789.eE+-,\t \n"
# What a line of VOT's form can follow.
_BEFORE = {"1": ("", "2", "0"), "2": ("1", "box"), "0": ("2", "0"), "box": ("1", "box")}


def read(path: str | os.PathLike[str], box_form: str = "xywh") -> Result:
  """Reads a result file: JSON where its text starts like JSON (benchmarks ship JSON named .txt), else a table.

  Args:
    path: the file.
    box_form: "xywh", or "xyxy" for corners; then w = x2 - x1 without a +1. It is never guessed.

  Returns:
    The result, its boxes as xywh in the file's own coordinates. In the frames in which VOT's form says that the
    tracker was started it is absent: such a file does not hold the true box.

  Raises:
    UserError: naming the file, the line or frame, and what was expected.
  """
  return read_with_gaps(path, box_form)[0]


def read_with_gaps(path: str | os.PathLike[str], box_form: str) -> tuple[Result, tuple[int, ...]]:
  """`read`, and the frames whose box is the true one, which is not in the file (VOT's form)."""
  path = os.fspath(path)
  if box_form not in BOX_FORMS:
    raise UserError(f"{path}: unknown box form {box_form!r}, expected one of {', '.join(BOX_FORMS)}")
  content, scores = read_bytes(path), None
  starts: tuple[int, ...] = (0,)
  gaps: tuple[int, ...] = ()
  is_json = path.lower().endswith(".json")
  boxes = None if is_json else regular_table(content)
  if boxes is None:
    text = _text(path, content)
    if is_json or text.lstrip()[:1] in ("{", "["):
      boxes, scores, starts = _from_json(path, text)
    else:
      boxes, gaps = _from_table(path, text)
      starts = gaps or starts
  if box_form == "xyxy":
    boxes = _from_corners(path, boxes)
  return Result(boxes, score=scores, starts=starts), gaps


def read_made_of(path: str | os.PathLike[str]) -> dict[str, str]:
  """What one of our own result files says that it was made of; nothing in those of others and of earlier versions.

  Returns:
    "frames": the digest of the frames' files (`contents.digest`), and in reset-based runs "truth", one of all boxes.
  """
  path = os.fspath(path)
  try:
    content = grammar.parse_json(_text(path, read_bytes(path)))
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not valid JSON ({str(error)[:80]}), expected a result file of ours") from error
  found = content.get("made_of") if isinstance(content, Mapping) else None
  return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, Mapping) else {}


def read_confidences(path: str | os.PathLike[str], count: int) -> np.ndarray:
  """Reads `<sequence>_001_confidence.value` of VOT's long-term form: a number per line, the first line can be empty.

  Returns:
    float64 [count], NaN where there is no number.
  """
  path = os.fspath(path)
  lines = grammar.lines(_text(path, read_bytes(path)))
  if len(lines) != count:
    raise UserError(f"{path}: {len(lines)} lines for {count} boxes, expected one per box")
  values = [grammar.number(line) for line in lines]
  if not lines[0]:
    values[0] = math.nan
  wrong = next((t for t, value in enumerate(values) if value is None or math.isinf(value)), None)
  if wrong is not None:
    raise UserError(f"{path}: line {wrong + 1} is {short(lines[wrong])}, expected a number")
  return np.array(values)


def regular_table(content: bytes) -> np.ndarray | None:
  """The quick way for what most files are: a table with nothing but four plain numbers on every line.

  Returns:
    float64 [T, 4], the same as the careful way gives, or None where that has to look.
  """
  content = content.replace(b"\r\n", b"\n")
  if content.translate(None, _REGULAR):
    return None
  lines = content.rstrip(b" \t\n").split(b"\n")
  separator = b"," if b"," in lines[0] else None  # None splits at blanks and tabs.
  words = []
  for line in lines:
    row = line.split(separator)
    if len(row) != 4:
      return None
    words += row
  try:
    table = np.array([*map(float, words)]).reshape(-1, 4)
  except ValueError:
    return None
  return table if (np.abs(table) <= _LARGEST).all() else None


def _text(path: str, content: bytes) -> str:
  try:
    return content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: not a text file, expected boxes as JSON or as lines of x,y,w,h") from error


def _from_json(path: str, text: str) -> tuple[np.ndarray, list[float] | None, tuple[int, ...]]:
  try:
    content = grammar.parse_json(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path}: not valid JSON ({str(error)[:80]}), expected {{\"res\": [[x,y,w,h], ...]}}") from error
  members = content if isinstance(content, Mapping) else {"res": content}
  if members.get("incomplete"):
    raise UserError(f"{path}: is marked as incomplete ({short(members['incomplete'])}), expected the result of a whole "
                    "sequence")
  entries, scores, starts = members.get("res"), members.get("score"), members.get("starts", [0])
  if not isinstance(entries, list) or not entries:
    raise UserError(f"{path}: no boxes in it, expected {{\"res\": [[x,y,w,h] or [], ...]}} with an entry per frame")
  boxes = [_box(entry, f"{path}: frame {t}") for t, entry in enumerate(entries)]
  if scores is not None:
    if not isinstance(scores, list) or len(scores) != len(boxes):
      raise UserError(f"{path}: \"score\" must be a list of {len(boxes)} numbers, one for each box")
    scores = [_number(s, f"{path}: score of frame {t}") if s is not None else math.nan for t, s in enumerate(scores)]
  ordered = isinstance(starts, list) and starts[:1] == [0] and all(type(t) is int for t in starts)
  if not ordered or any(a >= b for a, b in itertools.pairwise([*starts, len(boxes)])):
    raise UserError(f"{path}: \"starts\" is {short(starts)}, expected ascending frames from 0 on, below {len(boxes)}")
  return np.array(boxes), scores, tuple(starts)


def _from_table(path: str, text: str) -> tuple[np.ndarray, tuple[int, ...]]:
  """Boxes [T, 4] and the starts of VOT's form, none in an ordinary table."""
  lines = grammar.lines(text)
  if not lines:
    raise UserError(f"{path}: empty, expected one line of x,y,w,h per frame")
  vot = lines[0] == "1"
  boxes, starts, before = [], [], ""
  for number, line in enumerate(lines, start=1):
    where, found = f"{path}: line {number}", grammar.box(line)
    if found:
      boxes.append(_box(found, where))
    elif vot and line in ("0", "1", "2"):
      boxes.append([math.nan] * 4)
    else:
      raise UserError(f"{where} is {short(line)}, expected four numbers x,y,w,h")
    if vot:
      kind = "box" if found else line
      if before not in _BEFORE[kind]:
        raise UserError(f"{where} is {short(line)} after {short(lines[number - 2])}, expected VOT's order: "
                        "1 (start), boxes, 2 (failure), 0 (skipped), 1")
      before = kind
      if kind == "1":
        starts.append(number - 1)
  return np.array(boxes), tuple(starts)


def _from_corners(path: str, boxes: np.ndarray) -> np.ndarray:
  """[T, 4] xyxy -> xywh. A corner before the other is refused: most often the file holds xywh."""
  sizes = boxes[:, 2:] - boxes[:, :2]
  wrong = (sizes < 0).any(axis=1)
  if wrong.any():
    t = int(np.argmax(wrong))
    raise UserError(f"{path}: frame {t} is {short(boxes[t].tolist())}, expected x1,y1,x2,y2, x2 >= x1 and y2 >= y1")
  return np.concatenate([boxes[:, :2], sizes], axis=1)


def _box(entry: Any, where: str) -> list[float]:
  """One entry of "res" or one line as four floats: finite, or all NaN for absent."""
  numbers = entry if isinstance(entry, list) else [entry]
  values = [_number(value, where) for value in numbers]
  if len(values) <= 1 or (len(values) == 4 and all(math.isnan(value) for value in values)):
    return [math.nan] * 4
  if len(values) == 4 and all(abs(value) <= _LARGEST for value in values):
    return values
  raise UserError(f"{where} is {short(entry)}, expected x,y,w,h in pixels (or [] for absent)")


def _number(value: Any, where: str) -> float:
  """A number that is not infinite (an integer of 400 digits is: no float holds it); NaN is allowed."""
  if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > sys.float_info.max:
    return float(value)
  raise UserError(f"{where} holds {short(value)}, expected a number")
