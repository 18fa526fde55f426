"""One writer per folder: who is refused, what a crash leaves, file systems without locks between hosts."""

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from input_pipeline.errors import UserError
from siamdff_jax.training import workdir_lock
from siamdff_jax.training.workdir_lock import Busy, WorkdirLock

HOLDER = """
import sys, time
from siamdff_jax.training.workdir_lock import WorkdirLock
with WorkdirLock(sys.argv[1]):
  print("held", flush=True)
  time.sleep(600)
"""


@pytest.fixture
def quick(monkeypatch):
  """Seconds for what takes a minute."""
  monkeypatch.setattr(workdir_lock, "_BEAT", 0.2)
  monkeypatch.setattr(workdir_lock, "_LEASE", 1.5)


@pytest.fixture
def elsewhere(monkeypatch):
  """Kernel locks do not reach the others here, as on a bucket and on some mounts of networks."""

  def refuse(*_):
    raise OSError(errno.ENOTSUP, "Operation not supported")

  monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def other_process(tmp_path):
  """A process that holds the lock of `tmp_path`."""
  process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                             env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def left_behind(folder, **who):
  """What a holder leaves that died without a word."""
  found = {"host": "gpu7", "process": 4711, "machine": "another", "token": "theirs", "since": "yesterday", "beats": 3}
  (folder / "training.holder.json").write_text(json.dumps(found | who))


def test_a_second_process_is_told_who_writes_and_a_killed_one_leaves_nothing_locked(other_process, tmp_path, caplog):
  with pytest.raises(Busy) as error, WorkdirLock(str(tmp_path)):
    pass
  assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
  assert f"process {other_process.pid} on host" in str(error.value) and "another --workdir" in str(error.value)
  other_process.send_signal(signal.SIGSTOP)  # Slow is not dead.
  with pytest.raises(Busy), WorkdirLock(str(tmp_path)):
    pass
  other_process.kill()
  other_process.wait()
  start = time.monotonic()
  with caplog.at_level(logging.INFO, "siamdff_jax"), WorkdirLock(str(tmp_path)):
    assert time.monotonic() - start < 5
    assert f"process {other_process.pid} on host" in caplog.text and "taken over" in caplog.text
  assert not (tmp_path / "training.holder.json").exists()


def test_one_after_the_other_and_other_names(tmp_path):
  for _ in range(2):
    with WorkdirLock(str(tmp_path / "new" / "run")), WorkdirLock(str(tmp_path / "new" / "run"), "other"):
      pass
  with WorkdirLock(str(tmp_path)), pytest.raises(Busy, match="this is taken .*; do something"):
    WorkdirLock(str(tmp_path), what="this is taken", advice="do something").__enter__()
  with pytest.raises(ZeroDivisionError), WorkdirLock(str(tmp_path)):
    raise ZeroDivisionError
  with WorkdirLock(str(tmp_path)):
    pass


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path):
  (tmp_path / "run").write_text("")
  with pytest.raises(UserError, match=r"run: cannot be written \("), WorkdirLock(str(tmp_path / "run")):
    pass


def test_another_hosts_holder_is_believed_while_it_beats(quick, elsewhere, tmp_path):
  with WorkdirLock(str(tmp_path)) as held:
    start = time.monotonic()
    with pytest.raises(Busy, match="process .* on host"), WorkdirLock(str(tmp_path)):
      pass
    assert time.monotonic() - start < 1.5
    held.require()
  with WorkdirLock(str(tmp_path)):  # It has ended: no waiting.
    pass


@pytest.mark.parametrize("kernel", [True, False])
def test_another_hosts_holder_that_is_silent_is_taken_over(quick, request, tmp_path, caplog, kernel):
  """A kernel lock that could be had says nothing of another machine."""
  if not kernel:
    request.getfixturevalue("elsewhere")
  left_behind(tmp_path)
  start = time.monotonic()
  with caplog.at_level(logging.INFO, "siamdff_jax"), WorkdirLock(str(tmp_path)) as held:
    assert time.monotonic() - start > 1.4
    held.require()
  assert "process 4711 on host gpu7, since yesterday, gives no sign of life; taken over" in caplog.text


def test_a_holder_file_that_is_no_json_locks_nobody_out(quick, tmp_path):
  (tmp_path / "training.holder.json").write_text("{")
  with WorkdirLock(str(tmp_path)) as held:
    held.require()
    assert json.loads((tmp_path / "training.holder.json").read_text())["process"] == os.getpid()


def test_who_was_silent_for_too_long_and_lost_the_lock_writes_no_more(quick, elsewhere, tmp_path):
  with WorkdirLock(str(tmp_path)) as held:
    left_behind(tmp_path, process=7, beats=0)  # By somebody who has taken over.
    with pytest.raises(Busy, match="process 7 on host gpu7"):
      held.require()
    time.sleep(0.5)
  assert json.loads((tmp_path / "training.holder.json").read_text())["process"] == 7  # It stays theirs.


def test_a_folder_that_vanishes_and_comes_again_stays_locked(quick, tmp_path):
  run = tmp_path / "run"
  with WorkdirLock(str(run)) as held:
    run.rename(tmp_path / "moved away")
    time.sleep(0.5)
    run.mkdir()
    held.require()
    with pytest.raises(Busy), WorkdirLock(str(run)):
      pass
    time.sleep(0.5)
    assert json.loads((run / "training.holder.json").read_text())["process"] == os.getpid()
