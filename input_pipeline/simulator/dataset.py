"""A folder of simulated sequences that can be continued after an interruption."""

import contextlib
import functools
import json
import multiprocessing
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.datasets import load
from input_pipeline.errors import UserError
from input_pipeline.files import write_atomically
from input_pipeline.frames import AnyPath, ImageFiles
from input_pipeline.sequences import FrameShape, Sequence, from_labels
from input_pipeline.simulator.backgrounds import without_target
from input_pipeline.simulator.contact_sheet import contact_sheet
from input_pipeline.simulator.render import simulate
from input_pipeline.simulator.streams import stream
from input_pipeline.simulator.writing import LABEL_FILE, is_complete, write_sequence

PARAMETERS_FILE = "simulation.json"
SHEET_FILE, BESIDE_FILE = "contact_sheet.png", "beside.jpg"


def write_dataset(folder: AnyPath, num_sequences: int, num_frames: int, seed: int, width: int, height: int, *,
                  shapes: Iterable[FrameShape] = (), camera_jumps: bool = False,
                  replay: tuple[str, AnyPath] | None = None, backgrounds: tuple[str, AnyPath] | None = None,
                  workers: int = 1) -> pathlib.Path:
  """Simulates sequences 0..num_sequences-1 into a folder; complete ones that are there already are kept.

  Args:
    folder: made when it is not there; remembers its parameters in `simulation.json`.
    num_sequences: how many; may be larger than in an earlier call on the same folder.
    num_frames: per sequence; the most that are taken of a replayed one.
    seed: of the data set.
    width, height: of the frames in pixels.
    shapes: of the frames instead, of which each sequence draws one.
    camera_jumps: whether the camera jumps several times in every sequence.
    replay: (format, root) of a data set with frames. Sequence i follows the boxes of its sequence i (in the order of
      names, from the start again after the last) from the first visible one on, scaled to the frame's size.
    backgrounds: (format, root) of a data set with frames. The scene of each sequence is made from a frame of it.
    workers: processes; what is written does not depend on it.

  Returns:
    The path of a picture of twelve of the frames.

  Raises:
    UserError: nothing to simulate, a folder made with other parameters, or one that cannot be written to; camera
      jumps in a replay; a data set that cannot be read or has a sequence without a visible target.
  """
  folder = pathlib.Path(folder)
  if num_sequences < 1 or seed < 0:
    raise UserError(f"cannot simulate {num_sequences} sequences with seed {seed}, expected at least one and "
                    "a seed >= 0")
  if camera_jumps and replay:
    raise UserError("replayed trajectories cannot have camera jumps of the simulator's, expected one of the two")
  for source in filter(None, (replay, backgrounds)):
    _load_once(*map(str, source))  # What cannot be read is said before anything is written.
  sizes = [list(shape.wh) for shape in shapes] or [[width, height]]
  parameters = {"seed": seed, "num_frames": num_frames, "sizes": sizes, "camera_jumps": camera_jumps,
                "replay": [str(part) for part in replay or ()]}
  if backgrounds:  # Named only then, so that folders made before there were any can be continued.
    parameters["backgrounds"] = [str(part) for part in backgrounds]
  _claim(folder, parameters)
  missing = [index for index in range(num_sequences) if not is_complete(folder, f"sim_{index:06d}")]
  make = functools.partial(_write_one, folder, parameters)
  with contextlib.ExitStack() as stack:
    progress = stack.enter_context(tqdm(total=len(missing), unit="seq", desc=f"simulating into {folder}"))
    made: Iterable[None] = map(make, missing)
    if workers > 1:
      pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
      made = pool.imap_unordered(make, missing)
    for _ in made:
      progress.update()
  return _write_sheet(folder, num_sequences)


def _write_one(folder: pathlib.Path, parameters: Mapping[str, Any], index: int) -> None:
  """Simulates and writes sequence `index` of the folder that has these parameters."""
  seed, frames = parameters["seed"], parameters["num_frames"]
  width, height = parameters["sizes"][stream(seed, index, "size").integers(len(parameters["sizes"]))]
  boxes = background = None
  if parameters["replay"]:
    given = _load_once(*parameters["replay"])
    boxes = _trajectory(given[index % len(given)], frames, FrameShape(height, width))
    frames = len(boxes)
  if "backgrounds" in parameters:
    rng, (format, root) = stream(seed, index, "background"), parameters["backgrounds"]
    names = [sequence.name for sequence in _load_once(format, root)]
    # Opened anew: hundreds of videos kept open in each of many processes are more than a system allows.
    (photographed,) = load(format, root, only=[names[int(rng.integers(len(names)))]])
    background = without_target(photographed, rng)
  write_sequence(simulate(seed, index, frames, width, height, trajectory=boxes, camera_jumps=parameters["camera_jumps"],
                          background=background), folder)


_load_once = functools.lru_cache(2)(load)  # Once in every process.


def _trajectory(sequence: Sequence, num_frames: int, shape: FrameShape) -> np.ndarray:
  """Boxes of a sequence from its first visible frame on, at most `num_frames`, in pixels of frames of another shape."""
  if not sequence.visible.any():
    raise UserError(f"{sequence.name}: the target is never visible, there is no trajectory to replay")
  assert sequence.shape is not None
  start = int(np.argmax(sequence.visible))
  return sequence.boxes[start:start + num_frames] * np.tile(np.divide(shape.wh, sequence.shape.wh), 2)


def _claim(folder: pathlib.Path, parameters: Mapping[str, Any]) -> None:
  """Refuses a folder whose sequences were made with other parameters."""
  path = folder / PARAMETERS_FILE
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
      found = _parameters_of(path)
      if found != parameters:
        raise UserError(f"{path}: this folder was simulated with {found}, not with {parameters}; "
                        "give another --out or remove it")
    else:
      write_atomically(path, json.dumps(parameters))
  except OSError as error:
    raise UserError(f"{folder}: cannot be written to ({error.strerror or error})") from error


def _parameters_of(path: pathlib.Path) -> Any:
  """What a simulation wrote into its `PARAMETERS_FILE`."""
  try:
    return json.loads(path.read_bytes())
  except ValueError as error:  # No JSON, or no text.
    raise UserError(f"{path}: not valid JSON, expected what an earlier simulation wrote there") from error


def _read(folder: pathlib.Path, index: int) -> Sequence:
  where = folder / f"sim_{index:06d}"
  label = json.loads((where / LABEL_FILE).read_text())
  boxes = [row or [np.nan] * 4 for row in label["gt_rect"]]
  return from_labels(where.name, ImageFiles(sorted(where.glob("*.jpg"))), boxes, label["exist"], where / LABEL_FILE,
                     label["attributes"])


def _write_sheet(folder: pathlib.Path, num_sequences: int) -> pathlib.Path:
  """Twelve frames, spread over the sequences and over time."""
  return _write_picture(folder / SHEET_FILE, contact_sheet(_shown([_read(folder, k * num_sequences // 12)
                                                                   for k in range(12)])))


def write_beside(folder: AnyPath, num_sequences: int, format: str, root: AnyPath) -> pathlib.Path:
  """Writes a picture of twelve simulated frames (left half) beside twelve of another data set (right half).

  Args:
    folder: of a simulated data set with `num_sequences` sequences.
    num_sequences: at least 1.
    format, root: of the other data set, with frames; its sequences are taken evenly in the order of names.

  Returns:
    The path of the picture, half as large as the contact sheet's scale.

  Raises:
    UserError: a data set that cannot be read, a picture that cannot be written.
  """
  folder = pathlib.Path(folder)
  others = load(format, root)
  left = _shown([_read(folder, k * num_sequences // 12) for k in range(12)])
  right = _shown([others[k * len(others) // 12] for k in range(12)])
  sheet = np.hstack([contact_sheet(left, columns=3), contact_sheet(right, columns=3)])
  return _write_picture(folder / BESIDE_FILE, cv2.resize(sheet, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


def _shown(sequences: Iterable[Sequence]) -> list[tuple[Sequence, int]]:
  """A frame number for each sequence, spread over time."""
  return [(sequence, k * 7919 % len(sequence)) for k, sequence in enumerate(sequences)]


def _write_picture(path: pathlib.Path, picture: np.ndarray) -> pathlib.Path:
  coded = cv2.imencode(path.suffix, picture)[1]
  try:
    path.write_bytes(coded.tobytes())
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
  return path
