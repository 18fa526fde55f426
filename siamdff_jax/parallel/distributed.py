"""Several processes as one training: how they find each other, who writes, and how they stop together."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from input_pipeline.errors import UserError

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None  # None: not set from Python.


def start(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
          ) -> None:
  """Joins this process to the others; to be called once, before anything else touches a device.

  Without arguments, the cluster says who the others are (TPU pods, SLURM, Open MPI, Kubernetes: see
  `jax.distributed.initialize`). Nothing is joined unless this is called.

  Args:
    coordinator: "host:port" of process 0, reachable from all.
    num_processes: how many there are.
    process_id: which one this is, from 0.

  Raises:
    UserError: some arguments without the others, no cluster found, or the others did not come.
  """
  given = (coordinator, num_processes, process_id)
  if any(x is not None for x in given) and any(x is None for x in given):
    raise UserError("--coordinator, --num_processes and --process_id belong together; without all three, a cluster "
                    "(TPU pod, SLURM, Open MPI, Kubernetes) must be there to be asked")
  # Only the CPU backend looks at it, which has no collectives between processes of its own.
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  try:
    jax.distributed.initialize(*given)
  except (ValueError, RuntimeError) as error:
    reason = str(error).splitlines()[0]
    if coordinator:
      raise UserError(f"process {process_id} of {num_processes} could not join the others at {coordinator}, expected "
                      f"process 0 to listen there and all to come ({reason})") from error
    raise UserError("no cluster was found that says who the other processes are, give --coordinator=HOST:PORT, "
                    f"--num_processes and --process_id ({reason})") from error


def is_lead() -> bool:
  """Whether this process writes logs, progress and the config: the first one. (Checkpoints are written by all.)"""
  return jax.process_index() == 0


def wait_for_all(name: str) -> None:
  """Returns when every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def lead_first() -> Iterator[None]:
  """What is inside happens in the first process, and when it is done there, in the others."""
  if not is_lead():
    wait_for_all("lead_first")
  yield
  if is_lead():
    wait_for_all("lead_first")


class StopSignal:
  """SIGTERM (preemption), SIGINT (Ctrl-C) and SIGHUP (a closed terminal) as something the loop asks for once per step.

  A second Ctrl-C interrupts at once. Signals that are ignored stay so: nohup ignores SIGHUP, and a shell SIGINT in what
  its scripts start in the background.

  With several processes JAX's preemption service is asked: it passes the signal of any process on to all and has them
  agree on the next step that none has passed. That is a look at a local variable, no communication in the step. Its
  own handler for SIGTERM comes with `start`, so none is set here, and the other signals are handed to that one.
  """

  _last: "StopSignal | None" = None

  def __init__(self) -> None:
    StopSignal._last = self
    self._asked = self._interrupted = False
    self._alone = jax.process_count() == 1
    self._previous: dict[int, _Handler] = {}
    for number in (signal.SIGINT, signal.SIGHUP, *([signal.SIGTERM] if self._alone else [])):
      if signal.getsignal(number) is not signal.SIG_IGN:
        self._previous[number] = signal.signal(number, self._ask)

  def _ask(self, number: int, _: FrameType | None) -> None:
    if number == signal.SIGINT:
      if self._interrupted:
        raise KeyboardInterrupt
      self._interrupted = True
      with contextlib.suppress(OSError):  # Not by `print` or `logging`, which the signal may have interrupted.
        os.write(2, b"\nstopping after this step, then saving; Ctrl-C again stops at once\n")
    if not self._alone and not self._asked:
      os.kill(os.getpid(), signal.SIGTERM)
    self._asked = True

  def asked(self, step: int) -> bool:
    """Whether to stop after `step`; the same answer on all processes, each of which asks once for every step."""
    return self._asked if self._alone else multihost_utils.reached_preemption_sync_point(step)

  @classmethod
  def was_asked(cls) -> bool:
    """Whether a signal came since the last of these was made, also after the last step that it was asked for: whoever
    has more to do then, another training, does not begin it."""
    return cls._last is not None and cls._last._asked

  def restore(self) -> None:
    """Sets what the signals did before."""
    for number, previous in self._previous.items():
      if previous is not None:
        signal.signal(number, previous)

  def raise_if_interrupted(self) -> None:
    """Raises KeyboardInterrupt if there was a Ctrl-C: all is saved, but whoever pressed it wants what follows to stop.

    So the exit code is 130, and a script that goes on after a success does not. After SIGTERM it is 0, as a scheduler
    that stops a run expects.
    """
    if self._interrupted:
      raise KeyboardInterrupt
