"""A folder of simulated sequences that can be continued after an interruption."""

import json
import pathlib

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import DataError
from input_pipeline.frames import ImageFiles
from input_pipeline.sequences import Sequence, from_labels
from input_pipeline.simulator.contact_sheet import contact_sheet
from input_pipeline.simulator.render import simulate
from input_pipeline.simulator.writing import LABEL_FILE, is_complete, write_sequence, write_whole

PARAMETERS_FILE = "simulation.json"
SHEET_FILE = "contact_sheet.png"


def write_dataset(folder, num_sequences: int, num_frames: int, seed: int, width: int, height: int) -> pathlib.Path:
  """Simulates sequences 0..num_sequences-1 into a folder; complete ones that are there already are kept.

  Args:
    folder: made when it is not there; remembers its parameters in `simulation.json`.
    num_sequences: how many; may be larger than in an earlier call on the same folder.
    num_frames: per sequence.
    seed: of the data set.
    width, height: of the frames in pixels.

  Returns:
    The path of a picture of twelve of the frames.

  Raises:
    DataError: nothing to simulate, a folder made with other parameters, or one that cannot be written to.
  """
  folder = pathlib.Path(folder)
  if num_sequences < 1 or seed < 0:
    raise DataError(f"cannot simulate {num_sequences} sequences with seed {seed}, expected at least one and "
                    "a seed >= 0")
  _claim(folder, {"seed": seed, "num_frames": num_frames, "width": width, "height": height})
  missing = [index for index in range(num_sequences) if not is_complete(folder, f"sim_{index:06d}")]
  with tqdm(total=len(missing) * num_frames, unit="frame", desc=f"simulating into {folder}") as progress:
    for index in missing:
      write_sequence(simulate(seed, index, num_frames, width, height), folder)
      progress.update(num_frames)
  return _write_sheet(folder, num_sequences)


def _claim(folder, parameters):
  """Refuses a folder whose sequences were made with other parameters."""
  path = folder / PARAMETERS_FILE
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
      found = json.loads(path.read_text())
      if found != parameters:
        raise DataError(f"{path}: this folder was simulated with {found}, not with {parameters}; "
                        "give another --out or remove it")
    else:
      write_whole(path, json.dumps(parameters))
  except OSError as error:
    raise DataError(f"{folder}: cannot be written to ({error.strerror or error})") from error
  except json.JSONDecodeError as error:
    raise DataError(f"{path}: not valid JSON, expected what an earlier simulation wrote there") from error


def _read(folder, index) -> Sequence:
  where = folder / f"sim_{index:06d}"
  label = json.loads((where / LABEL_FILE).read_text())
  boxes = [row or [np.nan] * 4 for row in label["gt_rect"]]
  return from_labels(where.name, ImageFiles(sorted(where.glob("*.jpg"))), boxes, label["exist"], where / LABEL_FILE,
                     label["attributes"])


def _write_sheet(folder, num_sequences):
  """Twelve frames, spread over the sequences and over time."""
  shown = []
  for k in range(12):
    sequence = _read(folder, k * num_sequences // 12)
    shown.append((sequence, k * 7919 % len(sequence)))
  path = folder / SHEET_FILE
  coded = cv2.imencode(".png", contact_sheet(shown))[1]
  try:
    path.write_bytes(coded.tobytes())
  except OSError as error:
    raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
  return path
