"""When a training is saved: every so many steps and at its end, but never within a streak of non-finite steps.

A checkpoint from within a streak is of no use: whatever is changed, the run that starts from it may have one bad step
left before it gives up.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping

import jax
import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.training.state import TrainState
from siamdff_jax.training.workdir_lock import WorkdirLock

log = logging.getLogger(__name__)


class Saving:
  """The saves of one start of a training.

  Args:
    saved: where to.
    lock: of the workdir; who has lost it must not save.
    config, inputs: see `Checkpoints.save`.
    quality: (state, step) -> what the best checkpoint is chosen by, or None.
  """

  def __init__(self, saved: Checkpoints, lock: WorkdirLock, config: ml_collections.ConfigDict,
               inputs: Mapping[str, Mapping], quality: Callable[[TrainState, int], float | None]):
    self._saved, self._lock, self._config, self._inputs, self._quality = saved, lock, config, inputs, quality
    self._due = False
    self._bad_steps = 0  # At the last call of `save`.

  def is_due(self, step: int, last: bool) -> bool:
    """Whether to call `save` after `step`; what could not be saved in a streak stays due until its end."""
    self._due |= last or step % self._config.train.checkpoint_every == 0
    return self._due

  def save(self, step: int, state: TrainState, bad_steps: jax.Array, stopping: bool) -> None:
    """Starts saving the state after `step`, or says that it cannot be.

    Args:
      step: the number of steps taken.
      state: after it.
      bad_steps: int32 [], non-finite steps in a row up to it.
      stopping: there is no time to measure the quality.
    """
    before, self._bad_steps = self._bad_steps, int(bad_steps)
    if self._bad_steps:
      if not before:
        log.warning("%s: step %d is within non-finite steps, %d in a row; the next finite one is saved",
                    self._saved.folder, step, self._bad_steps)
      return
    self._lock.require()
    self._saved.save(state, self._config, None if stopping else self._quality(state, step), self._inputs)
    self._due = False

  def say_stopped(self, step: int) -> None:
    """Waits for the last save and says where the run is after a signal has stopped it at `step`."""
    self._saved.wait()
    workdir, safe = self._saved.folder.parent, self._saved.last_step
    if not self._bad_steps:
      log.info("%s: stopped by signal at step %d, saved; the same command goes on from there", workdir, step)
    else:
      log.warning("%s: stopped by signal at step %d, within non-finite steps, which are not saved; %s", workdir, step,
                  "there is no earlier checkpoint" if safe is None else f"the same command goes on from step {safe}")

  def stop_if_broken(self, step: int, bad_steps: int) -> None:
    """Raises a UserError after too many non-finite steps in a row, or any at the end, with what to do about it."""
    if bad_steps < (1 if step == self._config.train.steps else self._config.train.max_bad_steps):
      return
    with contextlib.suppress(UserError):  # That a save failed has been said.
      self._saved.wait()
    folder, safe, lower = self._saved.folder, self._saved.last_step, "a lower --config.optimizer.learning_rate"
    if safe is None and bad_steps == step:
      advice = ("not once was it finite, so look at --config.loss.weights and --config.model.dtype before you try "
                f"{lower}")
    elif safe is None:
      advice = f"nothing of this run is saved, start it again with {lower}"
    else:
      advice = f"the checkpoint of step {safe} is from before, go on from it with {lower} and --allow_changes"
      if safe + bad_steps == step:
        advice += f" (no step since was finite: if that goes on, move {folder / str(safe)} away, to start before it)"
    raise UserError(f"{folder.parent}: the gradient was not finite for {bad_steps} steps in a row up to step {step}; "
                    f"{advice}")
