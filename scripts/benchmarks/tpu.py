"""The training step, compiled for TPUs that are not there: what the compiler says of time, memory and traffic.

Every case is a process of its own, which can be ended when it takes too long.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

import jax
import ml_collections
import numpy as np

from benchmarks import hlo, isolated, tpu_kernels
from benchmarks.cases import Case
from benchmarks.footprint import gib
from benchmarks.tpu_program import CHIPS, Chip, devices, host_devices, lowered, prepare

_NUMBERS = ("lower (s)", "compile (s)", "memory (GiB)", "of (GiB)", "GFLOP", "GB", "collectives", "collectives (MB)",
            "kernels", "fusions", "in loops", "padding", "estimate (ms)", "at least (ms)", "not estimated", "pairs/s")


def tables(cases: list[Case], given: list[str], layouts: list[str], batches: list[int], limit: float,
           slow: bool = False) -> Iterator[tuple[str, Iterable[dict]]]:
  """(title, rows) one after the other; the rows are made while they are read.

  Args:
    cases: their batch size and layout are replaced.
    given: topologies.
    layouts: of `tpu_program.LAYOUTS`.
    batches: pairs per device.
    limit: seconds that a case may take; it is given up then, and the row says so.
    slow: also which kernels take longest to compile, which then takes nearly twice as long.
  """
  kept: list[dict] = []
  combinations = itertools.product(cases, given, layouts, batches)
  yield "One device's program of the training step", (kept.append(row) or row for row in (
      _row(*combination, limit, slow) for combination in combinations))
  for row in kept:
    what = ", ".join(str(row[name]) for name in ("case", "dtype", "topology", "layout", "pairs per device"))
    if row["modules"]:
      yield f"Kernels by module: {what}", row["modules"]
    if row["slow"]:
      yield f"Longest to compile: {what}", row["slow"]


def _row(case: Case, topology: str, layout: str, pairs: int, limit: float, slow: bool) -> dict:
  places = devices(topology)
  count = len(host_devices(places) if layout == "population" else places)
  row = {"case": case.name, "dtype": case.config.model.dtype, "topology": topology, "devices": count, "layout": layout,
         "pairs per device": pairs, **dict.fromkeys(_NUMBERS)}
  arguments = {"name": case.name, "topology": topology, "layout": layout, "pairs": pairs}
  for name, config in (("config", case.config), ("teacher", case.teacher_config)):
    arguments[name] = None if config is None else json.loads(config.to_json_best_effort())
  row |= {"note": "", "modules": [], "slow": []}
  if not slow:
    return row | _measured(arguments, limit, {})
  with tempfile.TemporaryDirectory() as folder:
    row |= _measured(arguments, limit, tpu_kernels.dump_flags(folder))
    return row | {"slow": list(tpu_kernels.slow_to_compile(folder, time.time() if row["note"] else None))}


def _measured(arguments: dict, limit: float, environment: dict[str, str]) -> dict:
  try:
    (row,) = isolated.run("tpu", arguments, environment, timeout=limit)
  except subprocess.TimeoutExpired:
    return {"note": f"not compiled after {limit:.0f} s"}
  except isolated.Failed as failure:
    if "RESOURCE_EXHAUSTED" not in str(failure):
      raise
    needs = re.search(r"[Uu]sed ([\d.]+[KMGT]) of ([\d.]+[KMGT])|\(([\d.]+[KMGT])\) exceeds .*\(([\d.]+[KMGT])\)",
                      str(failure))
    used, has = [part for part in needs.groups() if part] if needs else ("more", "what it has")
    return {"note": f"out of memory: {used} of {has}"}
  return row


def compiled_row(case: Case, topology: str, layout: str, pairs: int) -> dict:
  """The numbers of a row of `tables`, and "modules", rows of `tpu_kernels.by_module`."""
  places = devices(topology)
  times = [time.perf_counter()]
  program = lowered(case, layout, places, pairs)
  times.append(time.perf_counter())
  compiled = program.compile()
  times.append(time.perf_counter())
  count = len(host_devices(places) if layout == "population" else places)
  row = {"lower (s)": times[1] - times[0], "compile (s)": times[2] - times[1]}
  return row | _read(compiled, hlo.Module(compiled.as_text()), CHIPS[places[0].device_kind], count * pairs)


def _read(compiled: jax.stages.Compiled, module: hlo.Module, chip: Chip, pairs: int) -> dict:
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  taken = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
           + memory.temp_size_in_bytes)
  kernels, collectives = module.kernels(), module.collectives()
  seconds = sum((kernel.cycles or 0) * times for kernel, times in kernels) / chip.clock
  sizes = [(times * a, times * b) for kernel, times in kernels for a, b in hlo.sizes_of(kernel.shape)]
  least = cost["optimal_seconds"]
  return {
      "memory (GiB)": gib(taken), "of (GiB)": gib(chip.memory), "GFLOP": cost["flops"] / 1e9,
      "GB": cost["bytes accessed"] / 1e9,
      "collectives": ", ".join(f"{count} {kind}" for kind, (count, _) in sorted(collectives.items())) or "none",
      "collectives (MB)": sum(size for _, size in collectives.values()) / 1e6,
      "kernels": sum(times for _, times in kernels),
      "fusions": sum(kernel.operation == "fusion" for kernel, _ in kernels),
      "in loops": sum(times for kernel, times in kernels if times > 1),
      "padding": 1 - sum(a for a, _ in sizes) / max(sum(b for _, b in sizes), 1),
      "estimate (ms)": 1e3 * seconds, "at least (ms)": 1e3 * (least - np.floor(least)),
      "not estimated": sum(times for kernel, times in kernels if kernel.cycles is None),
      "pairs/s": pairs / seconds if seconds else None, "modules": tpu_kernels.by_module(module, chip.clock)}


if __name__ == "__main__":
  prepare()
  asked = json.loads(sys.argv[1])
  student, of = (value and ml_collections.ConfigDict(value) for value in (asked.pop("config"), asked.pop("teacher")))
  print(json.dumps([compiled_row(Case(asked.pop("name"), student, of), **asked)]))
