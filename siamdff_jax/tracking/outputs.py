"""Where one track is written to, tried before anything is computed; and a process that is told to stop still writes."""

import contextlib
import errno
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO

from input_pipeline.errors import UserError
from siamdff_jax.tracking import encoding

_BYTES = 256  # Of one frame in boxes.json, at most.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Places:
  """The files of one track.

  Attributes:
    boxes, video: their paths.
  """

  def __init__(self, folder: str, reserve: IO[bytes]):
    """`reserve`: an open file without a name that holds the space for the boxes."""
    self.boxes, self.video = os.path.join(folder, "boxes.json"), os.path.join(folder, "track.mp4")
    self._reserve = reserve

  def clear(self) -> None:
    """Frees the space that is held for the boxes, and removes the video of an earlier track: it is not of these."""
    self._reserve.close()
    with contextlib.suppress(FileNotFoundError):
      os.unlink(self.video)


@contextlib.contextmanager
def prepared(folder: str, count: int) -> Iterator[Places]:
  """Makes the folder, and holds the space for boxes of `count` frames; removes it again where nothing was written.

  Raises:
    UserError: the folder cannot be made or written, is full, or there is no encoder.
  """
  encoding.find_encoder()
  made = not os.path.isdir(folder)
  with contextlib.ExitStack() as stack:
    try:
      os.makedirs(folder, exist_ok=True)
      if made:
        stack.callback(_remove_if_empty, folder)
      # Without a name: nothing is left of it, however the process ends.
      reserve = stack.enter_context(tempfile.TemporaryFile(dir=folder))
      places = Places(folder, reserve)
      for path in (places.boxes, places.video):
        if os.path.isdir(path):
          raise IsADirectoryError(errno.EISDIR, f"{os.path.basename(path)} is a folder in it")
      os.posix_fallocate(reserve.fileno(), 0, _BYTES * count)
      os.fsync(reserve.fileno())
    except OSError as error:
      raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
    yield places


def _remove_if_empty(folder: str) -> None:
  with contextlib.suppress(OSError):
    os.rmdir(folder)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Callable[[], None]]:
  """Lets signals that end a process raise in it, KeyboardInterrupt or SystemExit, once: what comes then is short.

  Yields:
    A function that raises it again where it was asked for: Python swallows an exception that arrives in a destructor or
    in a callback of its garbage collector, of which JAX has some.
  """
  asked: list[BaseException] = []

  def stop(number: int, frame: FrameType | None) -> None:
    del frame
    if not asked:
      asked.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
      raise asked[0]

  def check() -> None:
    if asked:
      raise asked[0]

  before = {}
  if threading.current_thread() is threading.main_thread():
    # A process in the background, or under nohup, ignores some: so it stays.
    before = {number: signal.getsignal(number) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
  try:
    for number in before:
      signal.signal(number, stop)
    yield check
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def reason(error: BaseException) -> str:
  """Why a process ends, in a few words."""
  if isinstance(error, KeyboardInterrupt):
    return "interrupted"
  if isinstance(error, SystemExit) and isinstance(error.code, int):
    return f"ended by {signal.Signals(error.code - 128).name}"
  return f"{type(error).__name__}: {error}"
