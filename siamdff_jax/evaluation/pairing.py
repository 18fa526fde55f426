"""Which runs of two trackers belong together, and the interval of their difference over runs.

A run is a training with a seed of its own, a start from a moved first box, or a repetition of which nothing more is
known. What a seed or a start does to both trackers alike is no part of their difference: where both have runs of the
same seeds, or from the same starts, each is compared with its partner.
"""

import os
import re
from collections.abc import Sequence as Ordered
from typing import NamedTuple

import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax import results
from siamdff_jax.evaluation import run_file, statistics
from siamdff_jax.evaluation.statistics import Estimate
from siamdff_jax.results import Result


class Unit(NamedTuple):
  """What a run is one of. Runs of one unit (the starts of one training) count as one, their mean.

  Attributes:
    kind: "seed" of a training, "start" from a moved first box, or "" where neither is known.
    number: the seed, or a number of the start or of the run.
  """

  kind: str
  number: int


class Runs(list[dict[str, Result]]):
  """The results of a tracker's runs by sequence; `units` says of each what it is."""

  def __init__(self, runs: Ordered[dict[str, Result]], units: Ordered[Unit]):
    super().__init__(runs)
    self.units = tuple(units)


class OverRuns(NamedTuple):
  """A difference with its 95 % interval over runs (NaN where there is none), how they were paired, and how many there
  are of both.
  """

  value: float
  low: float
  high: float
  how: str
  runs: tuple[int, int]


def read(folders: Ordered[str], sequences: Ordered[Sequence], format: str = "plain", box_form: str = "xywh",
         origin: int | None = None) -> Runs:
  """A tracker's results in all folders, one for each training of it or just one.

  Args:
    folders: the folders.
    sequences, format, box_form, origin: as of `results.read_folder`.
  """
  found = [results.read_folder(folder, sequences, format, box_form, origin) for folder in folders]
  if len(folders) == 1 and _about(folders[0]).get("run") == "sre":
    return Runs(found[0], [Unit("start", number) for number in range(len(found[0]))])
  if len(folders) == 1 and len(found[0]) > 1:
    return Runs(found[0], unknown(len(found[0])))
  of_each = of_seeds([seed_of_folder(folder) for folder in folders])
  units = [unit for unit, runs in zip(of_each, found, strict=True) for _ in runs]
  return Runs([run for runs in found for run in runs], units)


def unknown(count: int) -> list[Unit]:
  """Of runs of which nothing is known: each counts by itself."""
  return [Unit("", number) for number in range(count)]


def of_seeds(seeds: Ordered[int | None]) -> list[Unit]:
  """Of trainings; of an unknown kind if one of the seeds is unknown or occurs again."""
  known = [seed for seed in seeds if seed is not None]
  if len(set(known)) < len(seeds):
    return unknown(len(seeds))
  return [Unit("seed", seed) for seed in known]


def seed_of_folder(folder: str) -> int | None:
  """Of the training whose results a folder holds: from its run.json (`running.prepare`), or its name seed_<n>."""
  seed = _about(folder).get("seed")
  if type(seed) is int:
    return seed
  named = re.fullmatch(r"seed_(\d+)", os.path.basename(_tracker_folder(folder)), re.ASCII)
  return int(named[1]) if named else None


def over_runs(a: Ordered[float], units_a: Ordered[Unit], b: Ordered[float], units_b: Ordered[Unit]) -> OverRuns:
  """Mean of `a` minus mean of `b`, a score of each run, with its interval over runs.

  Where they share seeds or starts it is over those that both have.
  """
  ours, theirs = _by_unit(a, units_a), _by_unit(b, units_b)
  (kind, *_), (other, *_) = ({unit.kind for unit in units} for units in (ours, theirs))
  counts = len(ours), len(theirs)
  shared = sorted(ours.keys() & theirs.keys()) if kind else []
  if shared and (len(shared) > 1 or counts == (1, 1)):
    found = statistics.between_paired_runs([ours[unit] for unit in shared], [theirs[unit] for unit in shared])
    of_all = "" if counts == (len(shared),) * 2 else f", the {len(shared)} that both have"
    return OverRuns(*found, f"paired by {kind}{of_all}", counts)
  if kind and other and kind != other:
    value = float(np.mean([*ours.values()]) - np.mean([*theirs.values()]))
    return OverRuns(*Estimate(value, np.nan, np.nan), f"not comparable ({kind}s against {other}s)", counts)
  found = statistics.between_runs([*ours.values()], [*theirs.values()])
  return OverRuns(*found, f"unpaired ({kind}s differ)" if kind and other else "unpaired (seeds unknown)", counts)


def _by_unit(scores: Ordered[float], units: Ordered[Unit]) -> dict[Unit, float]:
  found: dict[Unit, list[float]] = {}
  for score, unit in zip(scores, units, strict=True):
    found.setdefault(unit, []).append(score)
  return {unit: float(np.mean(of_one)) for unit, of_one in found.items()}


def _tracker_folder(folder: str) -> str:
  """The one that holds run.json, also where the folder `results` in it is meant."""
  folder = os.path.abspath(folder)
  return os.path.dirname(folder) if os.path.basename(folder) == "results" else folder


def _about(folder: str) -> dict:
  """What run.json says; empty where there is none of ours: the folder can be anybody's."""
  try:
    return run_file.read(_tracker_folder(folder)) or {}
  except UserError:
    return {}
