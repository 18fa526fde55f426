"""The training loop: state and data position from the last checkpoint, then step after step."""

import logging
from collections.abc import Callable

import jax
import ml_collections

from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.config_check.experiment import check
from siamdff_jax.feeding import feeds, sources
from siamdff_jax.models.build import build
from siamdff_jax.parallel import distributed, layouts
from siamdff_jax.training import meter, same_run
from siamdff_jax.training.assembly import assemble, resumed
from siamdff_jax.training.evaluation import Evaluation
from siamdff_jax.training.logging import RunLog
from siamdff_jax.training.profiling import Profile
from siamdff_jax.training.quality import Quality
from siamdff_jax.training.run_config import write_config
from siamdff_jax.training.saving import Saving
from siamdff_jax.training.state import TrainState
from siamdff_jax.training.teacher import load_teacher
from siamdff_jax.training.validation import average, validation
from siamdff_jax.training.workdir_lock import WorkdirLock

log = logging.getLogger(__name__)


def train(config: ml_collections.ConfigDict, workdir: str, allow_changes: bool = False) -> TrainState:
  """Trains what `config` says in `workdir`, from its last whole checkpoint when it has one.

  Args:
    config: see configs/base.py.
    workdir: gets checkpoints, metrics.jsonl, TensorBoard files and config.json; one training at a time.
    allow_changes: go on although the checkpoint is of another config, other data or another teacher.

  Returns:
    The last state; of a training that is finished already, the one that was saved last.

  Raises:
    UserError: config, data, teacher or checkpoint at fault, another training in `workdir`, a checkpoint of something
      else, or too many non-finite steps in a row.
    KeyboardInterrupt: after Ctrl-C; the state is saved.
  """
  check(config)
  with WorkdirLock(workdir) as lock:
    sampler = sources.sampler(config.data.train, config, workdir)
    validation_sampler = sources.sampler(config.data.validation, config, workdir) if config.data.validation else None
    layout = layouts.make_layout(config.layout, config.train.batch_size, virtual_shards=config.train.virtual_shards)
    teacher, teacher_variables = load_teacher(config)
    evaluate = Evaluation(config) if config.evaluation.root else None
    inputs = same_run.describe({"data.train": sampler, "data.validation": validation_sampler, "evaluation": evaluate},
                               teacher_variables)
    same_run.require(workdir, config, inputs, allow_changes)
    initial, step, teacher_variables = assemble(config, layout, teacher, teacher_variables)
    with Checkpoints(workdir) as saved:
      state = resumed(saved.restore(initial), initial)
      start = int(state.step)
      if start >= config.train.steps:
        _say_finished(config, workdir, start, allow_changes)
        return state
      if start:
        log.info("%s: resuming at step %d of %d", workdir, start, config.train.steps)
      validate = validation(build(config.model), config, validation_sampler)
      feed = feeds.make(config, sampler, layout, start)
      compiled, rates = layout.compile(step, feed.prepare, feed.whole), meter.make(config)
      write_config(config, workdir)
      run_log = RunLog(workdir, start, config.train.steps, enabled=distributed.is_lead())
      saving = Saving(saved, lock, config, inputs, Quality(validate, evaluate, run_log))
      stop = distributed.StopSignal()

      def take(state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        return compiled(state, rates.take(feed), feed.replicated, teacher_variables)

      try:
        state = _take_steps(config, workdir, state, take, saving, stop, run_log, rates)
        saved.wait()
      finally:
        stop.restore()
        run_log.close()
    stop.raise_if_interrupted()
  return state


def _say_finished(config: ml_collections.ConfigDict, workdir: str, step: int, allow_changes: bool) -> None:
  log.info("%s: step %d of %d: finished, nothing to do; to train longer, raise --config.train.steps and add "
           "--allow_changes", workdir, step, config.train.steps)
  if not allow_changes:  # Else it may not be what was trained.
    write_config(config, workdir)


def _take_steps(config: ml_collections.ConfigDict, workdir: str, state: TrainState,
                take: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]], saving: Saving,
                stop: distributed.StopSignal, run_log: RunLog, rates: meter.Meter) -> TrainState:
  """From `state` to the last step, or to the one after which a signal asks to stop. `take`: state -> state, metrics."""
  start = int(state.step)
  profile = Profile(workdir, config.train.profile_steps if distributed.is_lead() else 0)
  pending: list[dict[str, jax.Array]] = []
  try:
    for number in range(start + 1, config.train.steps + 1):
      profile.before(number - start)
      state, metrics = take(state)
      pending.append(metrics)
      if len(pending) > 1:
        jax.block_until_ready(pending[-2])  # One step in flight: enough to hide the host, and the rate shown is true.
      rates.advance()
      run_log.advance()
      stopping = stop.asked(number)  # Asked once per step: the signal may come at any moment.
      last = number == config.train.steps or stopping
      if number % config.train.log_every == 0 or last:
        bad_steps = int(metrics["bad_steps"])
        scalars = average(pending) | {"bad_steps": bad_steps} | rates.scalars()
        scalars["learning_rate"] = float(state.opt_state.hyperparams["learning_rate"])
        run_log.write(number, scalars)
        saving.stop_if_broken(number, bad_steps)
        pending = []
      if saving.is_due(number, last):
        with rates.paused():
          saving.save(number, state, metrics["bad_steps"], stopping)
      if stopping:
        saving.say_stopped(number)
        break
  finally:
    profile.close()
  return state
