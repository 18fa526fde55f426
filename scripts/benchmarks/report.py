"""What a measurement is printed as: the machine's facts, a markdown table row by row, JSON."""

import datetime
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from input_pipeline.errors import UserError

_THREAD_VARIABLES = re.compile(
    r"OMP_|MKL_|OPENBLAS_|TF_NUM|XLA_|JAX_|NPROC|CUDA_VISIBLE|TPU_|NCCL_|NVIDIA_TF32|LIBTPU_")


def machine() -> dict[str, str | int]:
  """The facts that a timing means nothing without."""
  devices = jax.devices()
  facts = {
      "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
      "device": devices[0].device_kind, "devices": len(devices), "processes": jax.process_count(),
      "backend": jax.default_backend(), "jax": jax.__version__, "cpu": _cpu_model(),
      "usable_cores": len(os.sched_getaffinity(0)),
      "load": " ".join(f"{x:.2f}" for x in os.getloadavg()),
  }
  variables = {name: value for name, value in sorted(os.environ.items()) if _THREAD_VARIABLES.match(name)}
  return facts | {"environment": " ".join(f"{name}={value}" for name, value in variables.items()) or "-"}


def _cpu_model() -> str:
  try:
    with open("/proc/cpuinfo") as file:
      models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
  except OSError:  # Not Linux.
    models = []
  return models[0] if models else "unknown"


def machine_line(facts: Mapping[str, Any]) -> str:
  """The facts as one paragraph above a table."""
  return (f"{facts['devices']} x {facts['device']} ({facts['backend']}), jax {facts['jax']}; {facts['cpu']}, "
          f"{facts['usable_cores']} usable cores, load {facts['load']}; {facts['environment']}; {facts['date']}")


def cell(value: Any) -> str:
  """A table cell: four significant digits without an exponent; None is an empty cell."""
  if value is None:
    return ""
  if isinstance(value, bool | int | str):
    return str(value)
  if value == 0:
    return "0"
  return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
  """The row without what only the JSON has."""
  return {name: value for name, value in row.items() if not isinstance(value, list | dict | tuple)}


class Report:
  """Prints tables row by row as they come in, and keeps everything for the JSON, which grows with every row."""

  def __init__(self, command: str, repeats: int, path: str = "", facts: Mapping[str, Any] | None = None,
               write: Callable[[str], Any] = print):
    self._path, self._write = path, write
    if path and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
      raise UserError(f"--json={path}: cannot be written, expected a file in a folder that is there")
    facts = facts or machine()
    self._content: dict[str, Any] = {"command": command, "repeats": repeats, "machine": facts, "tables": []}
    write(f"{command}: medians of {repeats}; {machine_line(facts)}")

  def table(self, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """One table; `rows` may be a generator that measures."""
    kept: list[Mapping[str, Any]] = []
    self._content["tables"].append({"title": title, "rows": kept})
    self._write(f"\n{title}\n" if title else "")
    for row in rows:
      visible = shown(row)
      if not kept:
        self._write("| " + " | ".join(visible) + " |")
        self._write("|" + "".join(" --- |" if isinstance(v, str) else " ---: |" for v in visible.values()))
      kept.append(row)
      self._write("| " + " | ".join(cell(value) for value in visible.values()) + " |")
      self._save()

  def _save(self) -> None:
    if self._path:
      with open(self._path, "w") as file:
        json.dump(self._content, file, indent=1)
        file.write("\n")
