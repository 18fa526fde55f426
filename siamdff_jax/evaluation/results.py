"""What a tracker said about a sequence, and the files that hold it.

Two forms are read: Anti-UAV's JSON and text tables. JSON: `{"res": [[x,y,w,h] or [] ...]}` or the bare list; an
entry of no or one number (`[]`, `[0]`, `0`) means absent, **four zeros are a prediction**. Text: one box a line,
four numbers separated by commas, semicolons, tabs or blanks. A text table has no official way to say "absent"; four
NaN are taken as that (our choice: they can mean nothing else, and the official scripts make the whole score NaN).
"""

import dataclasses
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence

SUFFIXES = (".json", ".txt")
# Data sets whose published text results are, like their labels, written by Matlab: the top left pixel is (1, 1).
ONE_BASED_FORMATS = ("otb",)
_LARGEST = 1e7  # Pixels; a number beyond it is no coordinate.


@dataclasses.dataclass(frozen=True)
class Result:
  """A tracker's output on one sequence of T frames.

  Attributes:
    boxes: float64 [T, 4], xywh in pixels of the original frame, 0-based; NaN rows where the tracker says absent.
    present: bool [T]. False exactly where `boxes` is NaN; a box given together with False is dropped. None
      takes it from the boxes.
    score: float64 [T], the tracker's own confidence (NaN where it has none), or None.
  """

  boxes: np.ndarray
  present: np.ndarray | None = None
  score: np.ndarray | None = None

  def __post_init__(self):
    boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
    said = ~np.isnan(boxes).any(axis=1)
    present = said if self.present is None else np.array(self.present, bool).reshape(-1)
    score = None if self.score is None else np.array(self.score, np.float64).reshape(-1)
    if len(present) != len(boxes) or (score is not None and len(score) != len(boxes)):
      raise ValueError(f"{len(boxes)} boxes, {len(present)} presence flags and the scores differ in number")
    present &= said
    boxes[~present] = np.nan
    if np.isinf(boxes).any() or (score is not None and np.isinf(score).any()):
      raise ValueError("a box or a score is infinite, expected numbers or NaN")
    object.__setattr__(self, "boxes", boxes)
    object.__setattr__(self, "present", present)
    object.__setattr__(self, "score", score)

  def __len__(self) -> int:
    return len(self.boxes)


def write(path, result: Result, init=None):
  """Writes a result as Anti-UAV JSON, whole or not at all. What `read` gives back is equal to the last bit.

  Args:
    path: the .json file; its folder must exist.
    result: what to write.
    init: the box [x, y, w, h] that the tracker was started with; None takes the first box.
  """
  boxes = [box.tolist() if there else [] for box, there in zip(result.boxes, result.present, strict=True)]
  first = boxes[0] if boxes else []
  content = {
      "res": boxes,
      "score": None if result.score is None else [None if math.isnan(s) else s for s in result.score.tolist()],
      "present": result.present.tolist(),
      "init": first if init is None else [float(x) for x in init],
  }
  write_atomically(path, json.dumps(content, allow_nan=False).encode() + b"\n")


def write_atomically(path, content: bytes):
  """Writes bytes to a file through a temporary one beside it, so that a killed run leaves no half file."""
  path = os.fspath(path)
  try:
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=f".{os.path.basename(path)}.")
    try:
      with os.fdopen(handle, "wb") as file:
        file.write(content)
      os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read.
      os.replace(temporary, path)
    except BaseException:
      os.unlink(temporary)
      raise
  except OSError as error:
    raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def read(path) -> Result:
  """Reads a result file: JSON where its text starts like JSON (benchmarks ship JSON named .txt), else a table.

  Raises:
    DataError: naming the file, the line or frame, and what was expected.
  """
  path = os.fspath(path)
  try:
    with open(path, "rb") as file:
      text = file.read().decode("utf-8-sig")
  except OSError as error:
    raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
  except UnicodeDecodeError as error:
    raise DataError(f"{path}: not a text file, expected boxes as JSON or as lines of x,y,w,h") from error
  if path.lower().endswith(".json") or text.lstrip()[:1] in ("{", "["):
    return _from_json(path, text)
  return _from_table(path, text)


def read_folder(folder, sequences: Ordered[Sequence], format: str = "plain") -> dict[str, Result]:
  """Reads `<name>.json` or `<name>.txt` for every sequence; other files in the folder are left alone.

  Args:
    folder: where the result files are.
    sequences: the labelled sequences, for their names and lengths.
    format: the data set's format. A .txt file is in the coordinates of the label files, so those of
      ONE_BASED_FORMATS are made 0-based like the labels; a .json file is always 0-based (our choice).

  Returns:
    Results by sequence name.

  Raises:
    DataError: no such folder, missing files, both forms of one result, or a number of boxes that is not the labels'.
  """
  folder = os.fspath(folder)
  if not os.path.isdir(folder):
    raise DataError(f"{folder}: no such folder of result files")
  paths = {s.name: [p for p in (os.path.join(folder, s.name + x) for x in SUFFIXES) if os.path.isfile(p)]
           for s in sequences}
  missing = [name for name, found in paths.items() if not found]
  if missing:
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    raise DataError(f"{folder}: no result file (<sequence>.json or <sequence>.txt) for {len(missing)} of "
                    f"{len(paths)} sequences: {shown}")
  results = {}
  for sequence in sequences:
    found = paths[sequence.name]
    if len(found) > 1:
      raise DataError(f"{found[0]}: there is also {os.path.basename(found[1])}, expected one result per sequence")
    result = read(found[0])
    if format in ONE_BASED_FORMATS and found[0].endswith(".txt"):
      result = dataclasses.replace(result, boxes=result.boxes - (1, 1, 0, 0))
    if len(result) != len(sequence):
      raise DataError(f"{found[0]}: {len(result)} boxes for the {len(sequence)} labelled frames of "
                      f"{sequence.name}, expected one per frame")
    results[sequence.name] = result
  return results


def _from_json(path, text) -> Result:
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise DataError(f"{path}: not valid JSON ({str(error)[:80]}), expected {{\"res\": [[x,y,w,h], ...]}}") from error
  scores = content.get("score") if isinstance(content, Mapping) else None
  entries = content.get("res") if isinstance(content, Mapping) else content
  if not isinstance(entries, list) or not entries:
    raise DataError(f"{path}: no boxes in it, expected {{\"res\": [[x,y,w,h] or [], ...]}} with an entry per frame")
  boxes = [_box(entry, f"{path}: frame {t}") for t, entry in enumerate(entries)]
  if scores is not None:
    if not isinstance(scores, list) or len(scores) != len(boxes):
      raise DataError(f"{path}: \"score\" must be a list of {len(boxes)} numbers, one for each box")
    scores = [_number(s, f"{path}: score of frame {t}") if s is not None else math.nan for t, s in enumerate(scores)]
  return Result(np.array(boxes), score=scores)


def _from_table(path, text) -> Result:
  lines = text.rstrip().splitlines()
  if not lines:
    raise DataError(f"{path}: empty, expected one line of x,y,w,h per frame")
  boxes = []
  for number, line in enumerate(lines, start=1):
    words = re.split(r"[,;\s]+", line.strip(" \t,;"))
    try:
      values = [float(word) for word in words]
    except ValueError:
      values = []
    if len(values) != 4:
      raise DataError(f"{path}: line {number} is {_short(line)}, expected four numbers x,y,w,h")
    boxes.append(_box(values, f"{path}: line {number}"))
  return Result(np.array(boxes))


def _box(entry, where) -> list[float]:
  """One entry of "res" as four floats: finite, or all NaN for absent."""
  numbers = entry if isinstance(entry, list) else [entry]
  values = [_number(value, where) for value in numbers]
  if len(values) <= 1 or (len(values) == 4 and all(math.isnan(value) for value in values)):
    return [math.nan] * 4
  if len(values) == 4 and all(abs(value) <= _LARGEST for value in values):
    return values
  raise DataError(f"{where} is {_short(entry)}, expected x,y,w,h in pixels (or [] for absent)")


def _number(value, where) -> float:
  """A number that is not infinite (an integer of 400 digits is: no float holds it); NaN is allowed."""
  if isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) > sys.float_info.max:
    return float(value)
  raise DataError(f"{where} holds {_short(value)}, expected a number")


def _short(value) -> str:
  """A short, one-line text of any value, for messages."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # An integer of thousands of digits has no text.
    text = "something unprintable"
  return text if len(text) <= 60 else text[:57] + "..."
