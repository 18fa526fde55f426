"""Simulated sequences on disk, in the layout of Anti-UAV's frames + JSON."""

import json
import pathlib

import cv2

from input_pipeline.errors import UserError
from input_pipeline.files import write_atomically
from input_pipeline.frames import AnyPath
from input_pipeline.sequences import Sequence

LABEL_FILE = "IR_label.json"
_JPEG_QUALITY = 95


def write_sequence(sequence: Sequence, folder: AnyPath) -> pathlib.Path:
  """Writes `<folder>/<name>/000001.jpg ...` and, last of all, `<folder>/<name>/IR_label.json`.

  The label file appears in one piece after all frames, so a sequence that has one is complete.

  Args:
    sequence: with frames; boxes xywh in pixels, 0-based.
    folder: of the data set; made when it is not there.

  Returns:
    The sequence's folder.

  Raises:
    UserError: the folder cannot be written to or the disk is full.
  """
  assert sequence.frames is not None
  target = pathlib.Path(folder) / sequence.name
  rows = [[round(float(v), 3) for v in box] if seen else [] for box, seen in zip(
      sequence.boxes, sequence.visible, strict=True)]
  others = [[int(row[0]), *(round(float(v), 3) for v in row[1:])] for row in sequence.lookalikes]
  label = {"exist": [int(v) for v in sequence.visible], "gt_rect": rows, "attributes": list(sequence.attributes),
           "lookalikes": others}
  try:
    target.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(sequence.frames, start=1):
      coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
      (target / f"{t:06d}.jpg").write_bytes(coded.tobytes())
    write_atomically(target / LABEL_FILE, json.dumps(label))
  except OSError as error:
    raise UserError(f"{target}: the simulated sequence cannot be written ({error.strerror or error})") from error
  return target


def is_complete(folder: AnyPath, name: str) -> bool:
  """Whether `<folder>/<name>` holds a whole sequence."""
  return (pathlib.Path(folder) / name / LABEL_FILE).is_file()
