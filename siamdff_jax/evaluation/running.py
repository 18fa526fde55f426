"""Runs one tracker over labelled sequences into a folder of result files, and goes on where an earlier run stopped."""

import json
import os
import shutil
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from typing import Protocol

import numpy as np

from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import results, starts

# How a tracker is run: once per sequence from its first box (OPE); from twelve moved first boxes (SRE); or started anew
# from the truth after each failure (VOT).
RUNS = ("ope", "sre", "reset")
_ABOUT, _RESULTS = "run.json", "results"


class RunsStreams(Protocol):
  """A tracker that follows streams: `tracking.runner.Runner` or `tracking.baselines.BaselineRunner`.

  Attributes:
    frames_tracked, seconds: what it has done so far, and how long that took.
  """

  frames_tracked: int
  seconds: float

  def run(self, streams):
    """Yields (name, Result) as streams end."""


def prepare(out: str, *, tracker: str, run: str, redo: bool = False, seed: int | None = None):
  """Makes the folder for one tracker's results, or checks that what it holds is of the same tracker and kind of run.

  Args:
    out: the folder.
    tracker: what tells this tracker from others, e.g. a digest of its weights.
    run: one of RUNS.
    redo: remove results of another tracker or kind of run instead of refusing them.
    seed: of the tracker's training, kept so that `pairing` knows it.

  Raises:
    DataError: an unwritable folder, or one with results of another tracker or kind of run.
  """
  about, wanted = _read_about(out), {"tracker": tracker, "run": run}
  try:
    os.makedirs(out, exist_ok=True)
    for key, value in wanted.items():
      if about and about.get(key) != value:
        if not redo:
          raise DataError(f"{os.path.join(out, _ABOUT)}: the results there are of another {key} ({about.get(key)}, "
                          f"here {value}); choose another --out, or --redo to replace them")
        about = None
        shutil.rmtree(os.path.join(out, _RESULTS), ignore_errors=True)
  except OSError as error:
    raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
  _write_about(out, (about or wanted) | ({} if seed is None else {"seed": seed}))


def track(runner: RunsStreams, sequences: Ordered[Sequence], out: str, *, run: str, share=(0, 1)):
  """Tracks what has no result file yet, each sequence's file being written as soon as it is done.

  Args:
    runner: the tracker.
    sequences: with frames; the target must be visible in every first frame.
    out: a prepared folder, gets results/<sequence>.json; of SRE runs results/<sequence>/<sequence>_001.json to _012.
    run: one of RUNS; `runner` must be one that resets for "reset".
    share: (i, n): of n processes that share the sequences, this is number i. All must see the same folder.

  Raises:
    DataError: an absent first frame, unreadable frames, an unwritable folder, or one with results on other data.
  """
  folder = os.path.join(out, _RESULTS)
  streams = _streams(sequences, run)
  try:
    for path in sorted({os.path.dirname(os.path.join(folder, stream.name)) for stream in streams}):
      os.makedirs(path, exist_ok=True)
  except OSError as error:
    raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
  longest_first = sorted(streams, key=lambda stream: (-len(stream.frames), stream.name))
  left = [s for s in longest_first[share[0]::share[1]] if not _is_done(os.path.join(folder, f"{s.name}.json"), s)]
  boxes = {stream.name: stream.box for stream in left}
  try:
    for name, result in runner.run(left):
      results.write(os.path.join(folder, f"{name}.json"), result, init=boxes[name])
  finally:
    if share[0] == 0:
      about = _read_about(out)
      _write_about(out, {**about, "frames": about.get("frames", 0) + runner.frames_tracked,
                         "seconds": about.get("seconds", 0.0) + runner.seconds})


def frames_per_second(out: str) -> float | None:
  """Of all tracking into this folder so far (by the first process, where several shared it); None where unknown."""
  about = _read_about(out)
  return about["frames"] / about["seconds"] if about and about.get("seconds") else None


def _streams(sequences, run) -> list:
  from siamdff_jax.tracking.runner import Stream  # Here, so that scoring result files needs no JAX.

  streams = []
  for s in sequences:
    if not s.visible[0]:
      raise DataError(f"{s.name}: the target is absent in the first frame, expected a box to start from")
    box, truth = np.asarray(s.boxes[0], np.float64), np.asarray(s.boxes, np.float64)
    if run == "sre":
      streams += [Stream(f"{s.name}/{s.name}_{i:03d}", s.frames, starts.moved(box, start), size=s.size)
                  for i, start in enumerate(starts.SRE, 1)]
    else:
      streams.append(Stream(s.name, s.frames, box, truth if run == "reset" else None, s.size))
  return streams


def _is_done(path: str, stream) -> bool:
  if not os.path.isfile(path):
    return False
  found = results.read(path)
  if len(found) != len(stream.frames) or not np.allclose(found.boxes[0], stream.box):
    raise DataError(f"{path}: is of other data ({len(found)} frames from the box {found.boxes[0].tolist()}, here "
                    f"{len(stream.frames)} from {stream.box.tolist()}); choose another --out")
  return True


def _read_about(out: str) -> dict | None:
  path = os.path.join(out, _ABOUT)
  try:
    with open(path) as file:
      about = json.load(file)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise DataError(f"{path}: cannot be read ({error}), remove the folder to start again") from error
  if not isinstance(about, dict):
    raise DataError(f"{path}: expected a JSON object, remove the folder to start again")
  return about


def _write_about(out: str, about: Mapping):
  results.write_atomically(os.path.join(out, _ABOUT), json.dumps(about, indent=2).encode() + b"\n")
