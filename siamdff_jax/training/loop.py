"""The training loop: state and data position from the last checkpoint, then step after step."""

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from etils import epath

from input_pipeline.errors import UserError
from siamdff_jax import distillation
from siamdff_jax.checkpoints import trained
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.config_check.experiment import check
from siamdff_jax.feeding import feeds, sources
from siamdff_jax.models.build import build
from siamdff_jax.parallel import distributed
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training import same_run, throughput, torch_weights, warm_start
from siamdff_jax.training.evaluation import Evaluation
from siamdff_jax.training.logging import RunLog
from siamdff_jax.training.saving import Saving
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import initial_state, make_step
from siamdff_jax.training.validation import average, validation
from siamdff_jax.training.workdir_lock import WorkdirLock

log = logging.getLogger(__name__)

_PROFILE_AFTER = 5  # Steps of this start that are not traced: compilation and warming up.


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
    layout = parallel.make_layout(config.layout, config.train.batch_size, virtual_shards=config.train.virtual_shards)
    teacher, teacher_variables = load_teacher(config)
    evaluate = Evaluation(config) if config.evaluation.root else None
    inputs = same_run.describe({"data.train": sampler, "data.validation": validation_sampler, "evaluation": evaluate},
                               teacher_variables)
    same_run.require(workdir, config, inputs, allow_changes)
    initial, step, teacher_variables = _assemble(config, layout, teacher, teacher_variables)
    with Checkpoints(workdir) as saved:
      state = _adapted(saved.restore(initial), initial)
      start = int(state.step)
      if start >= config.train.steps:
        log.info("%s: step %d of %d: finished, nothing to do; to train longer, raise --config.train.steps and add "
                 "--allow_changes", workdir, start, config.train.steps)
        if not allow_changes:  # Else it may not be what was trained.
          write_config(config, workdir)
        return state
      if start:
        log.info("%s: resuming at step %d of %d", workdir, start, config.train.steps)
      validate = validation(build(config.model), config, validation_sampler)
      feed = feeds.make(config, sampler, layout, start)
      compiled, meter = layout.compile(step, feed.prepare, feed.whole), _meter(config)
      write_config(config, workdir)
      run_log = RunLog(workdir, start, config.train.steps, enabled=distributed.is_lead())
      quality = lambda state, number: _quality(state, number, validate, evaluate, run_log)
      saving, stop = Saving(saved, lock, config, inputs, quality), distributed.StopSignal()
      take = lambda state: compiled(state, meter.take(feed), feed.replicated, teacher_variables)
      try:
        state = _take_steps(config, workdir, state, take, saving, stop, run_log, meter)
        saved.wait()
      finally:
        stop.restore()
        run_log.close()
    stop.raise_if_interrupted()
  return state


def _take_steps(config, workdir: str, state: TrainState, take: Callable, saving: Saving, stop: distributed.StopSignal,
                run_log: RunLog, meter: throughput.Meter) -> TrainState:
  """From `state` to the last step, or to the one after which a signal asks to stop. `take`: state -> state, metrics."""
  start = int(state.step)
  profile = _Profile(workdir, config.train.profile_steps if distributed.is_lead() else 0)
  pending = []
  try:
    for number in range(start + 1, config.train.steps + 1):
      profile.before(number - start)
      state, metrics = take(state)
      pending.append(metrics)
      if len(pending) > 1:
        jax.block_until_ready(pending[-2])  # One step in flight: enough to hide the host, and the rate shown is true.
      meter.advance()
      run_log.advance()
      stopping = stop.asked(number)  # Asked once per step: the signal may come at any moment.
      last = number == config.train.steps or stopping
      if number % config.train.log_every == 0 or last:
        scalars = average(pending) | {"bad_steps": int(metrics["bad_steps"])} | meter.scalars()
        scalars["learning_rate"] = float(state.opt_state.hyperparams["learning_rate"])
        run_log.write(number, scalars)
        saving.stop_if_broken(number, scalars["bad_steps"])
        pending = []
      if saving.is_due(number, last):
        with meter.paused():
          saving.save(number, state, metrics["bad_steps"], stopping)
      if stopping:
        saving.say_stopped(number)
        break
  finally:
    profile.close()
  return state


def _adapted(restored: TrainState, initial: TrainState) -> TrainState:
  """The restored state with what this start has of its own.

  That is the weight decay, a number in the state (rates come from the schedule), and no bad steps: older checkpoints
  may be from within a streak.
  """
  decay = {"weight_decay": initial.opt_state.hyperparams["weight_decay"]}
  opt_state = restored.opt_state._replace(hyperparams=restored.opt_state.hyperparams | decay)
  return restored.replace(opt_state=opt_state, bad_steps=initial.bad_steps)


def _quality(state, step: int, validate, evaluate: Evaluation | None, run_log: RunLog) -> float | None:
  """What the best checkpoint is chosen by: the score of tracking, else the IoU on validation pairs, else None."""
  scalars = {f"validation/{name}": value for name, value in (validate(state) or {}).items()}
  if evaluate:
    scalars["evaluation/score"] = evaluate(state)
  if scalars:
    run_log.write(step, scalars)
  return scalars.get("evaluation/score", scalars.get("validation/iou"))


def _assemble(config, layout: parallel.Layout, teacher, teacher_variables) -> tuple[TrainState, Callable, Any]:
  """The state before the first step and the teacher's variables (or None), both placed, and the step to compile."""
  model = build(config.model, layout.norm_axis)
  distiller = distillation.build(config.distiller) if teacher else None
  rule = optimizer(config.optimizer, config.train.steps)
  state = initial_state(model, distiller, rule, config.seed, (teacher, teacher_variables))
  if config.train.init_checkpoint:
    state = warm_start.start_from(state, config.train.init_checkpoint)
  if config.train.init_backbone:
    state = torch_weights.start_from(state, config.train.init_backbone)
  step = make_step(model, rule, config, axis_name=layout.axis_name, distiller=distiller, teacher=teacher)
  return layout.put_state(state), step, layout.put_state(teacher_variables) if teacher else None


def _meter(config) -> throughput.Meter:
  """Rates for the log; MFU where the devices' peak is known."""
  peak = throughput.peak_flops(jax.devices()[0].device_kind, config.model.dtype)
  flops = None
  if peak:
    teacher = trained.load_config(config.teacher.checkpoint) if config.distiller.kind != "none" else None
    with contextlib.suppress(RuntimeError):  # Without a CPU backend beside the accelerator's nothing counts them.
      flops = throughput.model_flops(config, teacher)
    peak *= jax.device_count()
  return throughput.Meter(config.train.batch_size, flops, peak)


class _Profile:
  """Traces `count` steps after the first few of this start into `workdir`/profile, for TensorBoard or Perfetto."""

  def __init__(self, workdir: str, count: int):
    self._folder, self._count, self._running = os.path.join(workdir, "profile"), count, False

  def before(self, taken: int):
    """To be called before the step number `taken` of this start."""
    if self._count and taken == _PROFILE_AFTER + 1:
      # Without Python's calls: to stop tracing those while a save's threads came and went has crashed the process once.
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0
      jax.profiler.start_trace(self._folder, profiler_options=options)
      self._running = True
    elif taken == _PROFILE_AFTER + self._count + 1:
      self.close()

  def close(self):
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
      log.info("%s: the trace of some steps", self._folder)


def load_teacher(config):
  """The frozen teacher and its variables, or (None, None)."""
  if config.distiller.kind == "none":
    return None, None
  if not config.teacher.checkpoint:
    raise UserError("config.distiller.kind is set but config.teacher.checkpoint is empty: train a teacher first and "
                    "name its workdir, or set --config.distiller.kind=none")
  teacher_config = trained.load_config(config.teacher.checkpoint)
  for side in ("template_side", "search_side"):
    theirs, ours = teacher_config.model[side], config.model[side]
    if theirs != ours:
      raise UserError(f"{config.teacher.checkpoint}: the teacher's {side} is {theirs}, the student's {ours}; they must "
                      f"be equal, set --config.model.{side}={theirs}")
  from siamdff_jax.models.load import load_model

  return load_model(config.teacher.checkpoint)


def write_config(config, workdir):
  """Leaves the config where people look for it; every checkpoint has its own."""
  if not distributed.is_lead():
    return
  folder = epath.Path(workdir)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    whole, partial = folder / "config.json", folder / "config.json.partial"
    partial.write_text(config.to_json_best_effort(indent=2))
    partial.replace(whole)
  except OSError as error:
    raise UserError(f"{workdir}: cannot be written ({error.strerror or error})") from error
