"""A folder of result files -> results by sequence, in the layouts of the toolkits.

Below `<folder>/`, `<folder>/results/` (where `scripts/evaluate.py` writes), and `longterm/` and `baseline/` in either:

  <sequence>.json, <sequence>.txt                     Anti-UAV, pysot, got10k's OTB, LaSOT and UAV experiments
  <sequence>/<sequence>_001.txt, _002.txt, ...        GOT-10k (got10k, pysot): one file per repetition; ours: .json
  longterm/<sequence>/<sequence>_001.txt              VOT's long-term form (pysot), scores in `..._001_confidence.value`
  baseline/<sequence>/<sequence>_001.txt              VOT's reset-based form (pysot, got10k)

Other files (`<sequence>_time.txt`, `times/`, results of further sequences) are left alone.
"""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ordered

import numpy as np

from input_pipeline.datasets.formats import reader
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.results.reading import read_confidences, read_with_gaps
from siamdff_jax.results.result import Result

_SUFFIXES = (".json", ".txt")
_PLACES = tuple(os.path.join(*place) for place in itertools.product(("", "results"), ("", "longterm", "baseline")))
_FIRST = "001"
_SAME = 0.01  # Pixels; files are written with two digits or more.


def read_folder(folder: str | os.PathLike[str], sequences: Ordered[Sequence], format: str = "plain",
                box_form: str = "xywh", origin: int | None = None) -> list[dict[str, Result]]:
  """Reads a tracker's results for every sequence; the layouts are above. Names are compared in Unicode's form NFC.

  Args:
    folder: where the result files are.
    sequences: the labelled sequences, for their names, lengths and true boxes.
    format: the data set's format.
    box_form: "xywh" or "xyxy", see `reading.read`.
    origin: the coordinate of the first pixel in .txt files, which are made 0-based. None takes that of the label files,
      the format's `ORIGIN`. A .json file is always 0-based (our choice). A file whose first box is the true one
      in the other form, or by the other origin, is refused.

  Returns:
    One dict for each repetition in the order of their numbers, results by sequence name. Frames in which VOT's form
    says that the tracker was started hold the true box.

  Raises:
    UserError: no such folder, missing files, several results of one sequence, repetitions that not all sequences
      have, or a number of boxes that is not the labels'.
  """
  folder, origin = os.fspath(folder), reader(format).ORIGIN if origin is None else origin
  if not os.path.isdir(folder):
    raise UserError(f"{folder}: no such folder of result files")
  found = _find(folder, [sequence.name for sequence in sequences])
  numbers = sorted({number for files in found.values() for number in files})
  for name, files in found.items():
    if len(files) != len(numbers):
      raise UserError(f"{os.path.dirname(files[min(files)])}: repetitions {', '.join(sorted(files))} of {name}, "
                      f"expected {', '.join(numbers)} as other sequences have")
  return [{s.name: _read_one(found[s.name][number], s, origin, box_form) for s in sequences} for number in numbers]


def _find(folder: str, names: Ordered[str]) -> dict[str, dict[str, str]]:
  """{sequence name: {number of the repetition: path}}."""
  places = [(place, _entries(place)) for place in (os.path.join(folder, below) for below in _PLACES)
            if os.path.isdir(place)]
  found = {name: [files for place in places for files in _results(*place, unicodedata.normalize("NFC", name))]
           for name in names}
  missing = [name for name, results in found.items() if not results]
  if missing:
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    raise UserError(f"{folder}: no result file (<sequence>.json, <sequence>.txt or <sequence>/<sequence>_{_FIRST}.txt) "
                    f"for {len(missing)} of {len(names)} sequences: {shown}")
  for results in found.values():
    if len(results) > 1:
      first, second = (files[min(files)] for files in results[:2])
      raise UserError(f"{first}: there is also {os.path.relpath(second, folder)}, expected one result per sequence")
  return {name: results[0] for name, results in found.items()}


def _results(place: str, entries: Mapping[str, str], name: str) -> Iterator[dict[str, str]]:
  """Yields what `place`, which holds `entries`, has of one sequence, as {number: path}; more than one is too many."""
  for suffix in _SUFFIXES:
    if name + suffix in entries:
      yield {_FIRST: os.path.join(place, entries[name + suffix])}
  inner = os.path.join(place, entries[name]) if name in entries else ""
  if os.path.isdir(inner):
    pattern = re.compile(re.escape(name) + r"_(\d{3})\.(?:txt|json)", re.ASCII)
    matches = {file: pattern.fullmatch(entry) for entry, file in _entries(inner).items()}
    numbered = {match[1]: os.path.join(inner, file) for file, match in matches.items() if match}
    if numbered:
      yield numbered


def _entries(folder: str) -> dict[str, str]:
  """What a folder holds: {name in NFC: name on disk}."""
  try:
    files = sorted(os.listdir(folder))
  except OSError as error:
    raise UserError(f"{folder}: cannot be listed ({error.strerror or error})") from error
  entries = {unicodedata.normalize("NFC", file): file for file in files}
  if len(entries) != len(files):
    twin = next(file for file in files if file not in entries.values())
    raise UserError(f"{os.path.join(folder, twin)}: there is another file whose name looks the same, expected one")
  return entries


def _read_one(path: str, sequence: Sequence, origin: int, box_form: str) -> Result:
  result, gaps = read_with_gaps(path, box_form)
  if len(result) != len(sequence):
    raise UserError(f"{path}: {len(result)} boxes for the {len(sequence)} labelled frames of {sequence.name}, expected "
                    "one per frame")
  is_text = path.endswith(".txt")
  boxes, score, origin = result.boxes.copy(), result.score, origin if is_text else 0
  boxes[:, :2] -= origin
  if sequence.visible[0]:
    _check_form(path, boxes[0], np.asarray(sequence.boxes[0], np.float64), origin, box_form)
  for t in gaps:
    if not sequence.visible[t]:
      raise UserError(f"{path}: the tracker was started in frame {t}, in which the target of {sequence.name} is absent")
    boxes[t] = sequence.boxes[t]
  confidences = path.removesuffix(".txt") + "_confidence.value"
  if is_text and os.path.lexists(confidences):
    score = read_confidences(confidences, len(result))
  return Result(boxes, score=score, starts=result.starts)


def _check_form(path: str, box: np.ndarray, truth: np.ndarray, origin: int, box_form: str) -> None:
  """Refuses a file whose first box is exactly the true one, but in the form or by the origin that was not named."""

  def same(xy: np.ndarray, wh: np.ndarray) -> bool:
    return bool(np.abs(np.concatenate([xy, wh]) - truth).max() < _SAME)

  if same(box[:2], box[2:]):
    return
  corner = box[:2] + origin
  if same(box[:2], box[2:] - corner if box_form == "xywh" else box[2:] + corner):
    named, true = ("x,y,w,h", "x1,y1,x2,y2") if box_form == "xywh" else ("x1,y1,x2,y2", "x,y,w,h")
    raise UserError(f"{path}: its first box is the true one when read as {true}, expected {named}")
  if same(corner - (1 - origin), box[2:]):
    raise UserError(f"{path}: its first box is the true one when pixels are counted from {1 - origin}, expected from "
                    f"{origin} (--origin)")
