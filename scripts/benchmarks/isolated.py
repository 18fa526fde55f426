"""Measurements in processes of their own, for what is fixed when JAX starts: the number of devices, XLA's flags."""

import json
import os
import pathlib
import subprocess
import sys

_SCRIPTS = pathlib.Path(__file__).resolve().parents[1]


class Failed(Exception):
  """The process ended with an error; the message is its last line on stderr."""


def run(module: str, arguments: dict, environment: dict[str, str] | None = None, timeout: float = 3600) -> list[dict]:
  """Runs `python -m benchmarks.MODULE` with the arguments as JSON, and returns the rows that it prints.

  Raises:
    Failed: another exit code than 0.
  """
  variables = {**os.environ, **(environment or {})}
  folders = [str(_SCRIPTS), str(_SCRIPTS.parent), *filter(None, [variables.get("PYTHONPATH")])]
  variables["PYTHONPATH"] = os.pathsep.join(folders)
  command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(arguments)]
  done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout, check=False)
  if done.returncode:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise Failed(lines[-1] if lines else f"exit code {done.returncode}")
  return json.loads(done.stdout.splitlines()[-1])
