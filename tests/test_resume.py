"""A run that is killed, or asked to stop, and started again ends with the same bits as one that never stopped."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.training import checkpoints

ROOT = pathlib.Path(__file__).resolve().parent.parent
STEPS, EVERY = 24, 6  # Steps of the run, and between checkpoints.
CONFIG = """
import small
from configs import base

def get_config():
  config = small.config(norm="batch", use_sten=False, use_dsfam=False, use_dcfam=False)
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
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "train.py"), f"--config={self._config}", f"--workdir={workdir}",
         *options], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def finish(self, workdir: pathlib.Path, *options: str) -> tuple[int, str]:
    """(exit code, what it wrote to stderr)."""
    return _end(self.start(workdir, *options))

  def interrupt(self, workdir: pathlib.Path, step: int, sent: signal.Signals) -> tuple[int, str]:
    """Sends a signal as soon as `step` has been logged."""
    process = self.start(workdir)
    try:
      until = time.monotonic() + 120
      while process.poll() is None and _last_logged(workdir) < step and time.monotonic() < until:
        time.sleep(0.002)
      process.send_signal(sent)
      return _end(process)
    finally:
      process.kill()


def _end(process) -> tuple[int, str]:
  try:
    _, errors = process.communicate(timeout=600)
  finally:
    process.kill()
  return process.returncode, errors


def _logged(workdir) -> list[dict]:
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return [json.loads(line) for line in lines if line.endswith("\n")]


def _last_logged(workdir) -> int:
  return max((line["step"] for line in _logged(workdir)), default=0)


def _checkpoint_steps(workdir) -> list[int]:
  folder = workdir / checkpoints.FOLDER
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def _arrays(workdir, step: int) -> dict[str, np.ndarray]:
  tree = ocp.PyTreeCheckpointer().restore(workdir / checkpoints.FOLDER / str(step) / "state")
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _assert_same_bits(workdir, other):
  found, expected = _arrays(workdir, STEPS), _arrays(other, STEPS)
  assert found.keys() == expected.keys()
  for part in ("params", "batch_stats", "opt_state", "ema", "step"):
    assert any(name.startswith(f"['{part}']") for name in expected)
  for name, value in expected.items():
    assert found[name].dtype == value.dtype and found[name].tobytes() == value.tobytes(), name


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
  return Trainer(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(trainer, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  code, errors = trainer.finish(workdir)
  assert code == 0, errors
  return workdir


def test_a_whole_run_logs_and_keeps_what_it_says(uninterrupted):
  """Every step once; of the checkpoints the last, and the best by the validation's IoU."""
  lines = _logged(uninterrupted)
  assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
  quality = {line["step"]: line["validation/iou"] for line in lines if "validation/iou" in line}
  assert sorted(quality) == list(range(EVERY, STEPS + 1, EVERY))
  best = max(quality, key=lambda step: (quality[step], step))
  assert _checkpoint_steps(uninterrupted) == sorted({best, STEPS})
  assert checkpoints.find(str(uninterrupted)) == str(uninterrupted / checkpoints.FOLDER / str(best))
  assert checkpoints.load_config(str(uninterrupted)).train.steps == STEPS


def test_killed_and_stopped_runs_end_with_the_same_bits(trainer, uninterrupted, tmp_path):
  """SIGKILL at a random step between checkpoints, started again, SIGTERM, started again."""
  rng = np.random.default_rng(0)
  killed_at = int(rng.choice([n for n in range(EVERY + 1, 2 * EVERY + 5) if n % EVERY]))
  code, errors = trainer.interrupt(tmp_path, killed_at, signal.SIGKILL)
  assert code == -signal.SIGKILL, errors
  saved = _checkpoint_steps(tmp_path)
  assert STEPS not in saved

  code, errors = trainer.interrupt(tmp_path, int(rng.integers(2 * EVERY + 5, 3 * EVERY)), signal.SIGTERM)
  assert code == 0, errors
  assert "Traceback" not in errors
  if saved:
    assert f"resuming at step {saved[-1]} of {STEPS}" in errors
  stopped_at = _checkpoint_steps(tmp_path)[-1]
  assert f"stopped by signal at step {stopped_at}, saved" in errors
  assert killed_at - EVERY <= stopped_at < STEPS and stopped_at == _last_logged(tmp_path)

  code, errors = trainer.finish(tmp_path)
  assert code == 0, errors
  assert f"resuming at step {stopped_at} of {STEPS}" in errors
  _assert_same_bits(tmp_path, uninterrupted)
  # The best of all checkpoints is still known, also those from before the interruptions.
  assert _checkpoint_steps(tmp_path)[-1] == STEPS and len(_checkpoint_steps(tmp_path)) <= 2
  losses = lambda workdir: [(line["step"], line["loss"]) for line in _logged(workdir) if "loss" in line]
  assert losses(tmp_path) == losses(uninterrupted)  # No step twice, none missing, and the same numbers.


def test_a_config_that_does_not_fit_is_one_sentence(trainer, uninterrupted):
  before = _checkpoint_steps(uninterrupted)
  code, errors = trainer.finish(uninterrupted, "--config.model.features=24")
  assert code == 1 and "Traceback" not in errors
  sentences = [line for line in errors.splitlines() if line.startswith("error: ")]
  assert len(sentences) == 1
  folder = uninterrupted / checkpoints.FOLDER / str(STEPS)
  assert str(folder) in sentences[0] and "does not fit the config" in sentences[0]
  assert "(16,) in the checkpoint and (24,) in the config" in sentences[0] and "more" in sentences[0]
  assert _checkpoint_steps(uninterrupted) == before
