"""A trace of some steps of a training, for TensorBoard or Perfetto."""

import logging
import os

import jax

log = logging.getLogger(__name__)

_AFTER = 5  # Steps of this start that are not traced: compilation and warming up.


class Profile:
  """Traces `count` steps after the first few of this start into `workdir`/profile."""

  def __init__(self, workdir: str, count: int):
    self._folder, self._count, self._running = os.path.join(workdir, "profile"), count, False

  def before(self, taken: int) -> None:
    """To be called before the step number `taken` of this start."""
    if self._count and taken == _AFTER + 1:
      # Without Python's calls: to stop tracing those while a save's threads came and went has crashed the process once.
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0
      jax.profiler.start_trace(self._folder, profiler_options=options)
      self._running = True
    elif taken == _AFTER + self._count + 1:
      self.close()

  def close(self) -> None:
    """Ends the trace, if one is running."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      log.info("%s: the trace of some steps", self._folder)
