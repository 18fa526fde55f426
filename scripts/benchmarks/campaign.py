"""Many measurements by one command on a machine that is lent for minutes: resumable, within a limit of time.

A campaign is a list of stations, most wanted first. Each is a process of its own, so that neither its memory nor its
failure reaches the next, and leaves NAME.json in the folder: all that its command wrote by --json, and how it ended.
A station with that file is not run again. What a station prints is in NAME.txt, its messages in NAME.log.

Nothing here may look for a device: a TPU belongs to one process, and JAX takes most of a GPU's memory at once.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from input_pipeline.errors import UserError

DONE, FAILED, CUT, ABSENT, WAITING = "done", "failed", "cut off", "not possible here", "waiting"
_GRACE = 45.0  # Seconds from SIGTERM to SIGKILL: a training saves.
_TRAINING_SECONDS = 60.0  # Less is not worth the start of one.


@dataclasses.dataclass(frozen=True)
class Station:
  """One measurement.

  Attributes:
    name: of its files.
    command: program and arguments.
    seconds: that it is expected to take; it is not started where less is left.
    limit: seconds after which it is ended; None: only the campaign's end ends it, and the next start goes on with it.
    may_not_end: to be ended by its limit is a finding, not a failure.
    folder: where it runs; None is the present one.
    environment: variables besides this process's.
    measures: it writes rows by --json=FILE, and what it prints is worth being shown.
    absent: why it cannot be run here, or "".
  """

  name: str
  command: Sequence[str]
  seconds: float
  limit: float | None = None
  may_not_end: bool = False
  folder: str | None = None
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  measures: bool = True
  absent: str = ""


def trainings(path: str) -> list[Station]:
  """A station for every line of a file with commands like "scripts/train.py --config ... --workdir ...".

  Empty lines and those that begin with # do not count. They run one after the other; each must be able to go on where
  SIGTERM ended it, as trainings are.

  Raises:
    UserError: the file cannot be read, or a line is no command.
  """
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"--then={path}: cannot be read, expected a file with a command per line") from error
  found = []
  for number, line in enumerate(lines, 1):
    try:
      words = shlex.split(line, comments=True)
    except ValueError as error:
      raise UserError(f"--then={path}: line {number} is no command ({error})") from error
    if words:
      program = [sys.executable] if words[0].endswith(".py") else []
      found.append(Station(f"then-{number}", [*program, *words], _TRAINING_SECONDS, measures=False))
  return found


def run(stations: Sequence[Station], folder: str, minutes: float, write: Callable[[str], Any] = print) -> None:
  """Runs all that have no result yet, in order, leaving out those that are expected to take longer than is left.

  Args:
    stations: most wanted first.
    folder: of the results.
    minutes: the limit; what then runs is ended, which takes 45 seconds at most.
    write: is called with what is printed.

  Raises:
    UserError: the folder has a result of another command by the same name (before anything is run), or a station
      failed, now or before (after all others).
  """
  end = time.monotonic() + 60 * minutes
  os.makedirs(folder, exist_ok=True)
  results = {station.name: _result(folder, station) for station in stations}
  with _terminated_as_exit():
    for station in stations:
      left = end - time.monotonic()
      if results[station.name] is None and not station.absent and left >= station.seconds:
        write(f"\n## {station.name}: about {station.seconds:.0f} s, {left / 60:.1f} minutes left")
        results[station.name] = _measured(station, folder, left)
        if station.measures:
          write(pathlib.Path(folder, f"{station.name}.txt").read_text(errors="replace"))
  write("\n" + _summary(stations, results))
  failed = [f"{name} ({result['error']})" for name, result in results.items() if result and result["state"] == FAILED]
  if failed:
    raise UserError(f"failed: {'; '.join(failed)}; to try again, delete their .json in {folder}")


def _summary(stations: Sequence[Station], results: Mapping[str, dict[str, Any] | None]) -> str:
  lines = ["| station | state | seconds | |", "| --- | --- | ---: | --- |"]
  for station in stations:
    result = results[station.name] or {"state": ABSENT if station.absent else WAITING, "seconds": 0.0}
    seconds = f"{result['seconds']:.0f}" if result["seconds"] else ""
    lines.append(f"| {station.name} | {result['state']} | {seconds} | {result.get('error', station.absent)} |")
  waiting = sum(WAITING in line for line in lines)
  return "\n".join([*lines, *[f"{waiting} wait for another start"] * bool(waiting)])


def _result(folder: str, station: Station) -> dict[str, Any] | None:
  """What an earlier start has found, or None."""
  path = os.path.join(folder, f"{station.name}.json")
  if not os.path.exists(path):
    return None
  with open(path) as file:
    found = json.load(file)
  if found["arguments"] != list(station.command[1:]):
    raise UserError(f"{path}: is the result of {shlex.join(found['arguments'])}, expected one of "
                    f"{shlex.join(station.command[1:])}; choose another --out")
  return found


def _measured(station: Station, folder: str, left: float) -> dict[str, Any] | None:
  """Runs a station; its result, which is then in the folder, or None where the campaign's end has ended it."""
  partial, path = (os.path.join(folder, f"{station.name}{end}") for end in (".partial.json", ".json"))
  pathlib.Path(partial).unlink(missing_ok=True)
  command = [*station.command, f"--json={os.path.abspath(partial)}"] if station.measures else station.command
  limit = left if station.limit is None else min(left, station.limit)
  start = time.monotonic()
  log = os.path.join(folder, f"{station.name}.log")
  with open(os.path.join(folder, f"{station.name}.txt"), "w") as out, open(log, "w") as messages:
    code = _ended(command, limit, stdout=out, stderr=messages, cwd=station.folder,
                  env={**os.environ, **_cache(folder), **station.environment})
  if code is None and limit == left:
    return None
  found: dict[str, Any] = {}
  with contextlib.suppress(FileNotFoundError, json.JSONDecodeError), open(partial) as file:
    found = json.load(file)  # Ended while it wrote, it leaves none.
  state = DONE if code == 0 else CUT if code is None and station.may_not_end else FAILED
  found |= {"state": state, "seconds": time.monotonic() - start, "arguments": list(station.command[1:])}
  if code != 0:
    found["error"] = f"no end after {limit:.0f} s" if code is None else _last_words(log, code)
  with open(partial, "w") as file:
    json.dump(found, file, indent=1)
  os.replace(partial, path)  # Whole or not at all.
  return found


def _cache(folder: str) -> dict[str, str]:
  """Lets stations share what XLA compiles, unless the caller's own cache does."""
  own = {"JAX_COMPILATION_CACHE_DIR": os.path.abspath(os.path.join(folder, "compiled")),
         "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  return {name: value for name, value in own.items() if name not in os.environ}


def _ended(command: Sequence[str], limit: float, **options: Any) -> int | None:
  """Its exit code, or None where it had not ended by itself within `limit` seconds."""
  try:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)
  except OSError as error:
    os.write(options["stderr"].fileno(), f"{command[0]}: {error.strerror}\n".encode())
    return 127
  try:
    return process.wait(limit)
  except subprocess.TimeoutExpired:
    return None
  finally:  # Also where we are ended ourselves. What it started is of its group, and goes with it.
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGTERM)
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(log: str, code: int) -> str:
  lines = [line for line in pathlib.Path(log).read_text(errors="replace").splitlines() if line.strip()]
  if code < 0:
    return f"ended by signal {-code}"
  return lines[-1].removeprefix("error: ") if lines else f"exit code {code}"


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
  """Inside, SIGTERM is an exception like Ctrl-C, so that no station is left alone on the device."""

  def leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)

  previous = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)
