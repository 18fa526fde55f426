"""Starts, interrupts and compares runs of scripts/train.py, for the tests of resuming and of faults."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.checkpoints import contents
from siamdff_jax.training.logging import read_metrics

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS, EVERY = 24, 6  # Steps of the run, and between checkpoints.
PATIENCE = 600.0  # Seconds; a slow machine is no failure.
CONFIG = """
import small
from configs import base

def get_config():
  config = small.config(norm="batch", **small.PLAIN)
  source = dict(format="antiuav410", root={root!r}, weight=1.0)
  config.data.train = dict(simulated=source)
  config.data.validation = dict(simulated=source)
  config.optimizer.update(kind="adamw", learning_rate=1e-3, warmup_steps=3)
  config.train.update(steps={steps}, batch_size=4, log_every=1, checkpoint_every={every}, validation_pairs=4)
  return config
"""


class Trainer:
  """Starts scripts/train.py. Compiled programs are kept in a folder, so that only the first run compiles."""

  def __init__(self, folder: pathlib.Path):
    self._config, self._folder = folder / "config.py", folder
    write_dataset(folder / "data", 2, 8, seed=0, width=96, height=80)
    self._config.write_text(CONFIG.format(root=str(folder / "data"), steps=STEPS, every=EVERY))

  def start(self, workdir: pathlib.Path, *options: str) -> subprocess.Popen:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(self._folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), f"--config={self._config}", f"--workdir={workdir}",
         *options], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def finish(self, workdir: pathlib.Path, *options: str) -> tuple[int, str]:
    """(exit code, what it wrote to stderr)."""
    return _end(self.start(workdir, *options))

  def interrupt(self, workdir: pathlib.Path, sent: signal.Signals, ready: Callable[[subprocess.Popen], bool],
                *options: str) -> tuple[int, str]:
    """Sends a signal as soon as `ready`, asked again and again with the process, says so."""
    process = self.start(workdir, *options)
    try:
      until = time.monotonic() + PATIENCE
      while process.poll() is None and not ready(process) and time.monotonic() < until:
        time.sleep(0.002)
      process.send_signal(sent)
      process.send_signal(signal.SIGCONT)  # `ready` may have stopped it.
      return _end(process)
    finally:
      process.kill()


def _end(process) -> tuple[int, str]:
  try:
    _, errors = process.communicate(timeout=PATIENCE)
  finally:
    process.kill()
  return process.returncode, errors


def last_logged(workdir: pathlib.Path) -> int:
  return max((line["step"] for line in read_metrics(workdir)), default=0)


def losses(workdir: pathlib.Path) -> list[tuple[int, float]]:
  return [(line["step"], line["loss"]) for line in read_metrics(workdir) if "loss" in line]


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
  folder = workdir / contents.FOLDER
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def assert_same_bits(workdir: pathlib.Path, other: pathlib.Path, step: int = STEPS):
  """The checkpoints of both runs at `step` hold the same arrays, to the bit."""
  found, expected = _arrays(workdir, step), _arrays(other, step)
  assert found.keys() == expected.keys()
  for part in ("params", "batch_stats", "opt_state", "ema", "step"):
    assert any(name.startswith(f"['{part}']") for name in expected)
  for name, value in expected.items():
    assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


def _arrays(workdir, step: int) -> dict[str, np.ndarray]:
  tree = ocp.PyTreeCheckpointer().restore(workdir / contents.FOLDER / str(step) / "state")
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}
