"""Twenty runs killed at random moments, half of them during a save, end with the same bits as the uninterrupted one.

  python -m pytest -n 0 -s -m slow tests/test_faults.py    # about 15 minutes on two cores; prints a table

A run is killed by SIGKILL or SIGTERM, one in four a second time (which may be while it is starting), and then started
again to run to the end. What is random comes from the run's number; the exact moment is the machine's.
"""

import os
import re
import signal
import time

import numpy as np
import pytest
from trainer import EVERY, STEPS, Trainer, assert_same_bits, checkpoint_steps, last_logged, losses

from siamdff_jax.checkpoints import contents

pytestmark = pytest.mark.slow
RUNS = 20


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
  return Trainer(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def uninterrupted(trainer, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  start = time.monotonic()
  code, errors = trainer.finish(workdir)
  assert code == 0, errors
  print(f"\nuninterrupted: {STEPS} steps, {time.monotonic() - start:.0f} s with compilation")
  return workdir


@pytest.fixture(scope="module")
def table():
  rows = []
  yield rows
  heads = ("run", "signal", "moment", "during a save", "last logged", "saved", "resumed from", "seconds")
  print("\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
  for row in rows:
    print("| " + " | ".join(map(str, row)) + " |")


class _AtStep:
  """Some milliseconds after a step has been logged."""

  def __init__(self, workdir, rng):
    self._workdir, self._step, self._delay = workdir, int(rng.integers(1, STEPS)), rng.uniform(0, 0.1)
    self.name, self.saving = f"step {self._step}", False

  def __call__(self, process):
    if last_logged(self._workdir) < self._step:
      return False
    time.sleep(self._delay)
    self.saving = _is_saving(self._workdir)
    return True


class _DuringSave:
  """While a checkpoint is being written: the process is stopped to make sure that it is, then it gets the signal."""

  def __init__(self, workdir, rng):
    # Not the last of all: a run that ends before it was caught would be no fault.
    self._workdir, self._step, self._delay = workdir, EVERY * int(rng.integers(1, STEPS // EVERY)), rng.uniform(0, 0.03)
    self.name, self.saving = f"save at {self._step}", True

  def __call__(self, process):
    if not _is_saving(self._workdir, self._step):
      return False
    time.sleep(self._delay)
    process.send_signal(signal.SIGSTOP)
    if _is_saving(self._workdir, self._step):
      return True
    process.send_signal(signal.SIGCONT)  # Over already: the next save is caught, and as it starts.
    self._step, self._delay = self._step + EVERY, 0.0
    self.name = f"save at {self._step}"
    return False


class _AfterSeconds:
  """At any time: while it imports, compiles, restores or trains."""

  def __init__(self, workdir, rng):
    self._workdir, self._seconds, self._start = workdir, rng.uniform(0, 20), time.monotonic()
    self.name, self.saving = f"second {self._seconds:.0f}", False

  def __call__(self, process):
    if time.monotonic() - self._start < self._seconds:
      return False
    self.saving = _is_saving(self._workdir)
    return True


def _is_saving(workdir, step: int | str = "") -> bool:
  """Whether a checkpoint (of `step`) is being written, or was when the process died."""
  folder = workdir / contents.FOLDER
  names = os.listdir(folder) if folder.exists() else []
  return any(".orbax-checkpoint-tmp" in name and name.startswith(f"{step}") for name in names)


@pytest.mark.parametrize("number", range(RUNS), ids=lambda number: f"run{number:02d}")
def test_a_killed_run_ends_with_the_same_bits(trainer, uninterrupted, tmp_path, table, number):
  rng = np.random.default_rng(number)
  moments = [_DuringSave if number // 2 % 2 else _AtStep] + [_AfterSeconds] * (number % 4 == 2)
  for kind in moments:
    sent, moment, start = signal.SIGKILL if number % 2 else signal.SIGTERM, kind(tmp_path, rng), time.monotonic()
    code, errors = trainer.interrupt(tmp_path, sent, moment)
    # SIGTERM saves and exits with 0, but for one that comes before the training has started.
    early = kind is _AfterSeconds
    assert code in ({-sent, 0} if early else {-sent} if sent == signal.SIGKILL else {0}), errors
    if not early and kind is _DuringSave and sent == signal.SIGKILL:
      assert _is_saving(tmp_path)
    assert "Traceback" not in errors or early, errors
    died, saved = last_logged(tmp_path), checkpoint_steps(tmp_path)
    table.append([f"{number:2d}", sent.name, moment.name, "yes" if moment.saving else "no", died, saved,
                  "", round(time.monotonic() - start)])
    if sent == signal.SIGTERM and not early:
      assert saved[-1] == died

  before, start = max(checkpoint_steps(tmp_path), default=0), time.monotonic()
  code, errors = trainer.finish(tmp_path)
  assert code == 0, errors
  resumed = int((re.findall(r"resuming at step (\d+) of", errors) or [0])[0])
  table[-1][6:] = resumed, table[-1][7] + round(time.monotonic() - start)
  if before == STEPS:  # `_AfterSeconds` came when all was done already.
    assert f"step {STEPS} of {STEPS}: finished" in errors
  else:
    assert resumed == before and died - resumed <= 2 * EVERY
  assert_same_bits(tmp_path, uninterrupted)
  assert losses(tmp_path) == losses(uninterrupted)


def test_a_truncated_checkpoint_costs_the_steps_since_the_one_before(trainer, uninterrupted, tmp_path):
  code, errors = trainer.interrupt(tmp_path, signal.SIGTERM, lambda _: last_logged(tmp_path) >= EVERY + 2)
  assert code == 0, errors
  newest = tmp_path / contents.FOLDER / str(checkpoint_steps(tmp_path)[-1])
  file = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  os.truncate(file, file.stat().st_size // 2)
  before = checkpoint_steps(tmp_path)[-2]
  code, errors = trainer.finish(tmp_path)
  assert code == 0 and "Traceback" not in errors, errors
  assert f"{newest}: cannot be read completely" in errors and f"resuming at step {before} of" in errors
  assert_same_bits(tmp_path, uninterrupted)
  assert losses(tmp_path) == losses(uninterrupted)
