"""What may be wrong with the storage of checkpoints, said in a sentence, and the same on all processes."""

import contextlib
import errno
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils

from input_pipeline.errors import UserError

log = logging.getLogger(__name__)


class Damaged(UserError):
  """A checkpoint that cannot be read completely."""


@contextlib.contextmanager
def without_tracebacks() -> Iterator[None]:
  """Keeps Orbax from logging a failure at length, with its traceback: we say it in a sentence."""

  def is_short(record: logging.LogRecord) -> bool:
    return not (record.exc_info and f"orbax{os.sep}" in record.pathname)

  logger = absl_logging.get_absl_logger()
  logger.addFilter(is_short)
  try:
    yield
  finally:
    logger.removeFilter(is_short)


class _Quiet:
  """Keeps Python from reporting the reads or writes that Orbax abandons, one by one, when another one has failed.

  They report from threads of their own, where no `except` reaches them, to a hook of the whole process. It is replaced
  by the first `start` and set back by the last `stop`, on whichever threads these are called.
  """

  def __init__(self) -> None:
    self._lock, self._count = threading.Lock(), 0
    self._hook: Callable[[Any], Any] = sys.unraisablehook

  def start(self) -> None:
    with self._lock:
      self._count += 1
      if self._count == 1:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._report

  def stop(self) -> None:
    with self._lock:
      self._count -= 1
      if self._count == 0:
        sys.unraisablehook = self._hook

  def _report(self, report: Any) -> None:
    code = getattr(report.object, "cr_code", None)  # A coroutine's text does not say whose it is, its code does.
    of_orbax = "orbax" in repr(report.object) or (code is not None and f"orbax{os.sep}" in code.co_filename)
    if str(report.exc_value) != "Event loop is closed" and not of_orbax:
      self._hook(report)


_quiet = _Quiet()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps Python from reporting what Orbax abandons after a failure; for the time in which it reads or writes."""
  _quiet.start()
  try:
    yield
  finally:
    _quiet.stop()


def read(path: epath.Path, reader: Callable[[], Any]) -> Any:
  """What `reader` returns; whatever goes wrong in it is `Damaged`, but for a config that does not fit."""
  with without_tracebacks(), quiet():
    try:
      return reader()
    except (UserError, MemoryError, jax.errors.JaxRuntimeError):
      raise  # A device that is too small is no fault of the checkpoint.
    except Exception as error:  # Orbax raises all kinds, down to Exception itself.
      message = f"{path}: cannot be read completely ({reason(error)})"
    gc.collect()  # The abandoned reads go while it is quiet.
  raise Damaged(message)


def set_aside(path: epath.Path, why: str) -> None:
  """Renames a damaged checkpoint, so that nothing takes it for one and its step can be saved again.

  Raises:
    UserError: it cannot be renamed.
  """
  names = [f"damaged_{path.name}"] + [f"damaged_{path.name}_{n}" for n in range(2, 100)]
  free = from_first(next(n for n, name in enumerate(names) if not (path.parent / name).exists()))
  target, failure = path.parent / names[free], ""
  try:
    if jax.process_index() == 0:
      path.rename(target)
  except OSError as error:
    failure = reason(error)
  if on_any_process(bool(failure)):
    raise UserError(f"{why}; and it cannot be renamed to {target.name} ({failure or 'on process 0'})")
  log.warning("%s; passed over, it is %s now", why, target.name)


def _root(error: BaseException) -> BaseException:
  while error.__cause__ is not None:
    error = error.__cause__
  return error


def is_unsettled(error: BaseException) -> bool:
  """Whether what an earlier save left could not be removed because that save is still writing: a matter of patience.

  Among several processes it never is: the others would not try again together with the one that removes.
  """
  error = _root(error)
  return isinstance(error, OSError) and error.errno == errno.ENOTEMPTY and jax.process_count() == 1


def reason(error: BaseException) -> str:
  """An exception's cause in one line."""
  error = _root(error)
  if isinstance(error, OSError) and error.strerror:
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  # TensorStore: 'STATUS: Error writing "array" in ... file "...": the cause [os_error_code=...] [specification]'.
  return line.split(" [")[0].split('": ')[-1]


def on_any_process(flag: bool) -> bool:
  """Whether `flag` is set on any process; all of them have to ask."""
  return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def from_first(value: int) -> int:
  """The value of process 0, on all."""
  return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))
