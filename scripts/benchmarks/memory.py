"""Predicted against measured memory of a training step."""

from collections.abc import Iterable, Iterator

import jax
import ml_collections

from benchmarks import step
from benchmarks.cases import Case
from benchmarks.footprint import FRAMES, PURPOSES, gib, resident_bytes


def breakdown(row: dict, config: ml_collections.ConfigDict, frames: int = FRAMES) -> dict:
  """A row of this table from a row of `step.rows`: GiB on one device."""
  sizes = row.get("memory", dict.fromkeys(PURPOSES))  # Without it, the step did not fit.
  return {"case": row["case"], "batch": row["batch"], **{name: gib(sizes[name]) for name in PURPOSES},
          "measured": row["measured (GiB)"],
          f"{frames} resident frames": gib(resident_bytes(config, frames)) / jax.device_count(), "note": row["note"]}


def rows(cases: Iterable[Case], batches: Iterable[int], frames: int = FRAMES) -> Iterator[dict]:
  """One row per case and batch size; every step is compiled and run a few times.

  Args:
    cases: see `step.rows`.
    batches: global batch sizes, ascending.
    frames: of a data set that would live on the devices, split over all of them.
  """
  for case in cases:
    for row in step.rows([case], batches, repeats=1):
      yield breakdown(row, case.config, frames)
