"""Runs one tracker over labelled sequences into a folder of result files, and goes on where an earlier run stopped.

Every result remembers what it was made of: the tracker and the kind of run for the whole folder; frames, first box and,
in reset-based runs, the truth for each file. What was made of something else is refused or made again.
"""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Sequence as Ordered
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from input_pipeline.datasets import contents
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax import results
from siamdff_jax.evaluation import run_file, starts
from siamdff_jax.evaluation.usable import Usable
from siamdff_jax.results import Result
from siamdff_jax.tracking.streams import BrokenStreams, Stream

_RESULTS = "results"
METRICS, VIDEOS = "metrics.json", "videos"  # What `evaluate` makes of the results in the same folder.
log = logging.getLogger(__name__)


class RunsStreams(Protocol):
  """A tracker that follows streams: `tracking.runner.Runner` or `tracking.baselines.BaselineRunner`.

  Attributes:
    frames_tracked, seconds: what it has done so far, and how long that took.
  """

  frames_tracked: int
  seconds: float

  def run(self, streams: Iterable[Stream]) -> Iterator[tuple[str, Result]]:
    """Yields (name, Result) as streams end; raises `BrokenStreams` at the end where some did not come to theirs."""


def prepare(out: str, *, tracker: str, run: str, redo: bool = False, seed: int | None = None) -> None:
  """Makes the folder for one tracker's results, or checks that what it holds is of the same tracker and kind of run.

  Args:
    out: the folder.
    tracker: what tells this tracker from others, e.g. a digest of its weights.
    run: a name of `starts.RUNS`.
    redo: remove results of another tracker or kind of run instead of refusing them.
    seed: of the tracker's training, kept so that `pairing` knows it.

  Raises:
    UserError: an unwritable folder, or one with results of another tracker or kind of run.
  """
  about, wanted = run_file.read(out), {"tracker": tracker, "run": run}
  try:
    os.makedirs(out, exist_ok=True)
    for key, value in wanted.items():
      if about and about.get(key) != value:
        if not redo:
          raise UserError(f"{os.path.join(out, run_file.NAME)}: the results there are of another {key} "
                          f"({about.get(key)}, here {value}); choose another --out, or --redo to replace them")
        about = None
        for folder in (_RESULTS, VIDEOS):
          shutil.rmtree(os.path.join(out, folder), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
          os.unlink(os.path.join(out, METRICS))
  except OSError as error:
    raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
  run_file.write(out, (about or wanted) | ({} if seed is None else {"seed": seed}))


class _Task(NamedTuple):
  """A stream to track, the name of its sequence, and its result file."""

  stream: Stream
  sequence: str
  path: str


def track(runner: RunsStreams, sequences: Ordered[Sequence], out: str, *, run: str, share: tuple[int, int] = (0, 1),
          redo: bool = False, without: Collection[str] = (),
          digest: Callable[[str], str | None] | None = None) -> None:
  """Tracks what has no result file yet, each sequence's file being written as soon as it is done.

  Args:
    runner: the tracker.
    sequences: with frames; the target must be visible in every first frame.
    out: a prepared folder, gets results/<sequence>.json; of SRE runs results/<sequence>/<sequence>_001.json to _012.
    run: a name of `starts.RUNS`; `runner` must be one that resets for "reset".
    share: (i, n): of n processes that share the sequences, this is number i. All must see the same folder.
    redo: track again what there is a result of, but one of other data, or one that does not say of which.
    without: names of sequences that are not tracked; who shares which of the others does not change by it.
    digest: of the frames of a sequence, by its name; None takes `contents.digest`.

  Raises:
    BrokenStreams: by the names of sequences, what kept some from being tracked to their ends; all others are written.
    UserError: an absent first frame, an unwritable folder, or one with results on other data.
  """
  folder = os.path.join(out, _RESULTS)
  tasks = _tasks(sequences, run, folder)
  try:
    for path in sorted({os.path.dirname(task.path) for task in tasks}):
      os.makedirs(path, exist_ok=True)
  except OSError as error:
    raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
  longest_first = sorted(tasks, key=lambda task: (-len(task.stream.frames), task.stream.name))
  mine = [task for task in longest_first[share[0]::share[1]] if task.sequence not in without]
  made_of, broken = _made_of(mine, digest)
  mine = [task for task in mine if task.sequence not in broken]
  left = {task.stream.name: task for task in _not_done(mine, made_of, folder, redo)}
  try:
    for name, result in runner.run([task.stream for task in left.values()]):
      task = left[name]
      results.write(task.path, result, task.stream.box, made_of[task.sequence])
  except BrokenStreams as error:
    for name, reason in error.errors.items():
      broken.setdefault(left[name].sequence, reason)
  finally:
    if share[0] == 0:
      about = run_file.read(out) or {}
      run_file.write(out, {**about, "frames": about.get("frames", 0) + runner.frames_tracked,
                           "seconds": about.get("seconds", 0.0) + runner.seconds})
  if broken:
    raise BrokenStreams(broken, {})


def track_usable(runner: RunsStreams, usable: Usable, sequences: Ordered[Sequence], out: str, *, run: str,
                 share: tuple[int, int] = (0, 1), redo: bool = False) -> None:
  """`track` of what can be evaluated; what breaks is left out of `usable`.

  Args:
    usable: says what is left out already.
    sequences: all of `usable.loaded`, perhaps under a condition.
    runner, out, run, share, redo: as of `track`.

  Raises:
    UserError: as of `track`; and no sequence is left.
  """
  try:
    track(runner, sequences, out, run=run, share=share, redo=redo, without=usable.left_out, digest=usable.digest)
  except BrokenStreams as error:
    usable.leave_out(error.errors)


def untracked(sequences: Ordered[Sequence], out: str, *, run: str) -> list[str]:
  """The names of the sequences that lack a result file."""
  tasks = _tasks(sequences, run, os.path.join(out, _RESULTS))
  return sorted({task.sequence for task in tasks if not os.path.isfile(task.path)})


def frames_per_second(out: str) -> float | None:
  """Of all tracking into this folder so far (by the first process, where several shared it); None where unknown."""
  about = run_file.read(out)
  return about["frames"] / about["seconds"] if about and about.get("seconds") else None


def _tasks(sequences: Ordered[Sequence], run: str, folder: str) -> list[_Task]:
  streams = []
  for s in sequences:
    if not s.visible[0]:
      raise UserError(f"{s.name}: the target is absent in the first frame, expected a box to start from")
    assert s.frames is not None
    box, truth = np.asarray(s.boxes[0], np.float64), np.asarray(s.boxes, np.float64)
    if run == "sre":
      streams += [(Stream(f"{s.name}/{s.name}_{i:03d}", s.frames, starts.moved(box, start), shape=s.shape), s.name)
                  for i, start in enumerate(starts.SRE, 1)]
    else:
      streams.append((Stream(s.name, s.frames, box, truth if run == "reset" else None, s.shape), s.name))
  return [_Task(stream, name, os.path.join(folder, f"{stream.name}.json")) for stream, name in streams]


def _made_of(tasks: Ordered[_Task], digest: Callable[[str], str | None] | None
             ) -> tuple[dict[str, dict[str, str]], dict[str, UserError]]:
  """What results depend on besides the first box, and what keeps frames from being read; both by sequence."""
  made_of: dict[str, dict[str, str]] = {}
  errors: dict[str, UserError] = {}
  of_each = {task.sequence: task.stream for task in tasks}
  for name, stream in tqdm(of_each.items(), desc="hashing frames", unit="seq", delay=3, leave=False):
    try:
      found = {"frames": digest(name) if digest else contents.digest(stream.frames)}
    except UserError as error:
      errors[name] = error
      continue
    if stream.truth is not None:
      found["truth"] = hashlib.sha256(np.ascontiguousarray(stream.truth).tobytes()).hexdigest()[:32]
    made_of[name] = {key: value for key, value in found.items() if value}
  return made_of, errors


def _not_done(tasks: Ordered[_Task], made_of: Mapping[str, Mapping[str, str]], folder: str,
              redo: bool) -> list[_Task]:
  """What is to be tracked; with `redo`, what there is of it is removed, so that nobody takes it for the result."""
  left, unknown = [], 0
  for task in tasks:
    if not os.path.isfile(task.path):
      left.append(task)
      continue
    try:
      known = _is_of_same(task, made_of[task.sequence])
    except UserError:
      if not redo:
        raise
      known = False
    if not known and redo:
      left.append(task)
      out = os.path.dirname(folder)
      for path in (task.path, *(os.path.join(out, VIDEOS, f"{task.sequence}.{kind}") for kind in ("mp4", "png"))):
        with contextlib.suppress(FileNotFoundError):
          os.unlink(path)
    unknown += not known
  if unknown and not redo:
    log.warning("%s: %d results of an earlier version do not say which frames they were made of and are taken as they "
                "are; evaluate.py --redo tracks these sequences again", folder, unknown)
  return left


def _is_of_same(task: _Task, made_of: Mapping[str, str]) -> bool:
  """Whether a result says that it was made of these data; UserError where it was made of others."""
  path, stream = task.path, task.stream
  found, before = results.read(path), results.read_made_of(path)
  again = "remove the file (evaluate.py --redo does) to track it again, or choose another --out"
  if len(found) != len(stream.frames) or not np.allclose(found.boxes[0], stream.box):
    raise UserError(f"{path}: is of other data ({len(found)} frames from the box {found.boxes[0].tolist()}, here "
                    f"{len(stream.frames)} from {stream.box.tolist()}); {again}")
  for key, value in made_of.items():
    if before.get(key, value) != value:
      raise UserError(f"{path}: was made of other {'labels' if key == 'truth' else key} than {task.sequence} has now; "
                      f"{again}")
  return before.keys() >= made_of.keys()
