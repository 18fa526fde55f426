"""What a sweep leaves behind: sweep.json (what it is), trials.csv, best_config.json; the same for every engine."""

import contextlib
import csv
import dataclasses
import fcntl
import glob
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from input_pipeline import files
from input_pipeline.errors import UserError
from siamdff_jax.sweeps.space import Parameter, apply
from siamdff_jax.training import same_run
from siamdff_jax.training.logging import METRICS_FILE, read_metrics

OBJECTIVE = "validation/iou"
CLAIM_FILE, TABLE_FILE, BEST_FILE = "sweep.json", "trials.csv", "best_config.json"


@dataclasses.dataclass(frozen=True)
class Trial:
  """One trial: its number, {path: value}, "complete", "failed" or "running", its IoU, and why it failed."""

  number: int
  values: dict[str, Any]
  state: str
  iou: float | None = None
  reason: str = ""


def trial_folder(workdir: str, number: int) -> str:
  """The training workdir of a trial."""
  return os.path.join(workdir, f"trial_{number:04d}")


def best_iou(folder: str) -> float:
  """The objective: the best validation IoU of a training, which is that of the checkpoint it keeps as its best."""
  values = [line[OBJECTIVE] for line in read_metrics(folder) if OBJECTIVE in line]
  if not values:
    raise UserError(f"{os.path.join(folder, METRICS_FILE)}: no {OBJECTIVE} in it, expected one per checkpoint")
  return max(values)


def check_experiment(experiment: ml_collections.ConfigDict) -> None:
  """Raises a UserError when the experiment has nothing to measure trials on."""
  if not experiment.data.validation:
    raise UserError("the sweep's experiment has no validation data, set config.experiment.data.validation as "
                    "configs/sweep_quickstart.py does: trials are compared on it")


def claim(workdir: str, engine: str, space: Sequence[Parameter], experiment: ml_collections.ConfigDict, seed: int
          ) -> None:
  """Makes `workdir` that of this sweep. Places of data may differ between hosts; all else must stay as it was.

  Raises:
    UserError: the folder holds another sweep, or cannot be written.
  """
  what = json.loads(experiment.to_json_best_effort())
  for name in ("train", "validation"):
    for entry in what["data"][name].values():
      entry.pop("root", None)
  for group, name in (("data", "records"), ("data", "workers"), ("teacher", "checkpoint")):
    what[group].pop(name, None)
  mine = json.loads(json.dumps({"engine": engine, "seed": seed, "space": [dataclasses.asdict(p) for p in space],
                                "experiment": what}))
  path = os.path.join(workdir, CLAIM_FILE)
  files.make_folder(workdir)
  if not glob.glob(os.path.join(glob.escape(workdir), "trial_*")):  # Nothing was trained: it is anybody's.
    files.write_atomically(path, json.dumps(mine, indent=2) + "\n")
  try:
    with open(path) as file:
      theirs = json.load(file)
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error})") from error
  changed = [name for name, value in mine.items() if name != "experiment" and theirs.get(name) != value]
  changes = same_run.differences(theirs.get("experiment", {}), mine["experiment"], free=())
  if changed or changes:
    what = changed[0] if changed else f"experiment ({same_run.listed(changes, 'experiment.')})"
    raise UserError(f"{path}: this sweep was started with another {what}; give the new one another --workdir")


@contextlib.contextmanager
def lock(path: str) -> Iterator[None]:
  """Holds the file lock `path`; waits while another process has it.

  Raises:
    UserError: the file system has no locks.
  """
  with open(path, "w") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
      raise UserError(f"{path}: cannot be locked ({error.strerror or error}), expected a --workdir on a file system "
                      "with locks: the workers of a sweep take turns by it") from error
    yield


def write(workdir: str, trials: Sequence[Trial], experiment: ml_collections.ConfigDict) -> str:
  """Writes trials.csv and best_config.json.

  Returns:
    The table and the best as text, to be printed.

  Raises:
    UserError: trials ended and every one of them failed.
  """
  trials = sorted(trials, key=lambda t: t.number)
  paths = sorted({path for t in trials for path in t.values})
  rows: list[list[Any]] = [["trial", "state", "iou", *paths, "reason"]]
  rows += [[t.number, t.state, "" if t.iou is None else t.iou, *(t.values.get(p, "") for p in paths), t.reason]
           for t in trials]
  table = os.path.join(workdir, TABLE_FILE)
  content = io.StringIO()
  csv.writer(content, lineterminator="\n").writerows(rows)
  files.write_atomically(table, content.getvalue())
  complete = [(t.iou, t) for t in trials if t.state == "complete" and t.iou is not None]
  complete.sort(key=lambda pair: (-pair[0], pair[1].number))
  if not complete:
    failed = [t for t in trials if t.state == "failed"]
    if failed:
      raise UserError(f"{table}: none of the {len(trials)} trials succeeded; trial {failed[0].number}: "
                      f"{failed[0].reason}")
    return f"no trial is complete yet; see {table}"
  iou, best = complete[0]
  files.write_atomically(os.path.join(workdir, BEST_FILE),
                         apply(experiment, best.values).to_json_best_effort(indent=2) + "\n")
  folder = trial_folder(workdir, best.number)
  return "\n".join([_text(trials, [t for _, t in complete], paths), "",
                    f"best: trial {best.number}, validation IoU {iou:.4f}, in {folder}",
                    "as flags of scripts/train.py: " + " ".join(f"--config.{p}={v}" for p, v in best.values.items()),
                    f"all trials: {table}"])


def _text(trials: Sequence[Trial], complete: Sequence[Trial], paths: Sequence[str], most: int = 20) -> str:
  """The best trials first, then the failed ones, in aligned columns."""
  shown = [*complete, *(t for t in trials if t.state != "complete")]
  rows = [["trial", "IoU", *paths, "state"]]
  rows += [[str(t.number), "-" if t.iou is None else f"{t.iou:.4f}", *(_number(t.values.get(p, "-")) for p in paths),
            t.state + (f": {t.reason}" if t.reason else "")] for t in shown[:most]]
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
  lines = ["  ".join([*(cell.rjust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows]
  return "\n".join(lines + ([f"... and {len(shown) - most} more"] if len(shown) > most else []))


def _number(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)
