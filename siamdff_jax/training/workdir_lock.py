"""One writer per folder: a lock that a crash of its holder releases, on local disks and on network file systems.

Two signs together. The kernel's lock on NAME.lock: a live process has it whatever it is doing, and a dead one has lost
it at once. It holds between hosts on NFS 4 and on most cluster file systems, but not on buckets and not on every mount.
So the holder also leaves its name in NAME.holder.json and renews it every few seconds: where the kernel cannot tell, a
holder is believed alive as long as that file changes while one looks. No clock of another host is compared.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any, Self, TextIO

from etils import epath

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import faults
from siamdff_jax.parallel import distributed

log = logging.getLogger(__name__)

# Seconds, our choice: a holder renews its name so often, and one that is silent for so long is taken for dead.
_BEAT, _LEASE = 10.0, 60.0
_FIRST_BEAT = 2.0  # Sooner: where there are no kernel locks, two may have started at the same moment.


class Busy(UserError):
  """Another process writes there."""


class WorkdirLock:
  """Only one process writes into `folder` while this context is entered; of one training's processes the lead holds it.

  Readers need no lock. What a crashed holder left is taken over, said in a line: at once where it ran on this machine,
  after a minute of silence elsewhere.

  Args:
    folder: made where it is missing; a bucket's url, too.
    name: of the lock in the folder.
    what: what it means that somebody else has it; for the sentence.
    advice: what to do then.

  Raises:
    Busy: another process has it; the sentence names host, process and since when.
    UserError: the folder cannot be made or written.
  """

  def __init__(self, folder: str, name: str = "training", what: str = "a training is writing there already",
               advice: str = "wait for its end, stop it, or choose another --workdir"):
    self._folder, self._what, self._advice = folder, what, advice
    path = epath.Path(folder)
    self._lock_path, self._holder_path = path / f"{name}.lock", path / f"{name}.holder.json"
    self._me: dict[str, Any] = {
        "host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex,
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "beats": 0}
    self._file: TextIO | None = None
    self._thread: threading.Thread | None = None
    self._lost: Busy | None = None
    self._ended = threading.Event()

  def __enter__(self) -> Self:
    failure = None
    if distributed.is_lead():
      try:
        self._acquire()
      except UserError as error:
        failure = error
    if faults.on_any_process(failure is not None):
      self._release()
      raise failure or UserError(f"{self._folder}: process 0 could not lock it, see its message")
    return self

  def __exit__(self, *_: object) -> None:
    self._release()

  def require(self) -> None:
    """Raises `Busy` when another process has taken over: this one was silent for too long, and must not write."""
    if distributed.is_lead() and self._lost is None:
      self._find_out()
    if faults.on_any_process(self._lost is not None):
      raise self._lost or Busy(f"{self._folder}: process 0 has lost the lock")

  def _acquire(self) -> None:
    try:
      self._holder_path.parent.mkdir(parents=True, exist_ok=True)
      self._me["machine"] = _machine(self._holder_path.parent)
      by_kernel = self._take_kernel_lock()
      found = self._read()
      if found and by_kernel and found.get("machine") == self._me["machine"]:
        log.info("%s: %s, is gone; taken over", self._folder, _text(found))
      elif found:
        self._wait_until_silent(found)
      self._write()
    except OSError as error:
      raise UserError(f"{self._folder}: cannot be written ({error.strerror or error})") from error
    self._thread = threading.Thread(target=self._keep, name="workdir lock", daemon=True)
    self._thread.start()

  def _take_kernel_lock(self) -> bool:
    """Whether the file system has locks; `Busy` when another process has this one."""
    if "://" in self._folder:
      return False
    file = open(os.fspath(self._lock_path), "a")
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      raise self._busy(self._read()) from None
    except OSError as error:
      file.close()
      log.debug("%s: no kernel locks there (%s)", self._folder, error)
      return False
    if self._file:
      self._file.close()
    self._file = file
    return True

  def _wait_until_silent(self, found: Mapping[str, Any]) -> None:
    log.info("%s: %s; looking for up to %d s whether it is alive", self._folder, _text(found), _LEASE)
    until = time.monotonic() + _LEASE
    while time.monotonic() < until:
      time.sleep(_BEAT / 10)
      now = self._read()
      if now is None:
        return  # It has just ended.
      if now != found:
        raise self._busy(now)
    log.warning("%s: %s, gives no sign of life; taken over", self._folder, _text(found))

  def _busy(self, holder: Mapping[str, Any] | None) -> Busy:
    return Busy(f"{self._folder}: {self._what} ({_text(holder)}); {self._advice}")

  def _keep(self) -> None:
    wait = min(_FIRST_BEAT, _BEAT)
    while not self._ended.wait(wait) and self._lost is None:
      with contextlib.suppress(OSError):  # Storage has its bad moments; the next beat comes.
        self._find_out()
        self._me["beats"] += 1
        if self._lost is None and not self._ended.is_set():
          self._write()
      wait = _BEAT

  def _find_out(self) -> None:
    """Notes when the lock is another's now, and locks anew a folder that has vanished and come again."""
    found = self._read()
    try:
      if found is not None and found.get("token", self._me["token"]) != self._me["token"]:
        raise self._busy(found)
      if self._file and not _is_at(self._file, self._lock_path):
        self._take_kernel_lock()
    except Busy as error:
      self._lost = error
    except OSError:
      pass  # The folder is not there: whoever saves next makes it.

  def _read(self) -> dict[str, Any] | None:
    """The holder; None where there is none."""
    try:
      found = json.loads(self._holder_path.read_text())
      return found if isinstance(found, dict) else {"unreadable": found}
    except FileNotFoundError:
      return None
    except (OSError, ValueError) as error:
      return {"unreadable": str(error)}

  def _write(self) -> None:
    partial = self._holder_path.parent / f"{self._holder_path.name}.partial"
    partial.write_text(json.dumps(self._me))
    partial.replace(self._holder_path)  # Whole at every moment.

  def _release(self) -> None:
    self._ended.set()
    if self._thread:
      self._thread.join(_LEASE)
      found = self._read()
      if found is not None and found.get("token") == self._me["token"]:
        with contextlib.suppress(OSError):
          self._holder_path.unlink()
    if self._file:
      self._file.close()


def _is_at(file: TextIO, path: epath.Path) -> bool:
  """Whether an open file is the one that has this name now."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
  except FileNotFoundError:
    return False


def _machine(folder: epath.Path) -> str:
  """What kernel locks always reach: one mount of one kernel, in containers too. Host names are not unique."""
  try:
    with open("/proc/sys/kernel/random/boot_id") as file:
      kernel = file.read().strip()
  except OSError:
    kernel = f"{socket.gethostname()} {uuid.getnode():x}"
  return f"{kernel} {os.stat(folder).st_dev if os.path.exists(folder) else folder}"


def _text(holder: Mapping[str, Any] | None) -> str:
  if not holder or "process" not in holder:
    return "a process that has not left its name"
  return f"process {holder['process']} on host {holder.get('host')}, since {holder.get('since')}"
