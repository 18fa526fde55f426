"""The training loop: state and data position from the last checkpoint, then step after step."""

import logging
import os
import signal
import time

import jax
import ml_collections

from input_pipeline import pipeline
from input_pipeline.errors import DataError
from input_pipeline.sampling import PairSampler
from siamdff_jax import distillation
from siamdff_jax.export import torch_weights
from siamdff_jax.models.build import build
from siamdff_jax.training import checkpoints, parallel, sources
from siamdff_jax.training.logging import RunLog
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import initial_state, make_step
from siamdff_jax.training.validation import average, validation

log = logging.getLogger(__name__)


def train(config: ml_collections.ConfigDict, workdir: str) -> TrainState:
  """Trains what `config` says in `workdir`, from its last checkpoint when it has one.

  Args:
    config: see configs/base.py.
    workdir: gets checkpoints, metrics.jsonl, TensorBoard files and config.json.

  Returns:
    The last state.

  Raises:
    DataError: data, teacher or checkpoint at fault, or too many non-finite steps in a row.
  """
  write_config(config, workdir)
  train_sampler = sources.sampler(config.data.train, config, workdir)
  validation_sampler = sources.sampler(config.data.validation, config, workdir) if config.data.validation else None

  layout = parallel.make_layout(config.layout, config.train.batch_size)
  model = build(config.model, layout.axis_name)
  teacher, teacher_variables = load_teacher(config)
  distiller = distillation.build(config.distiller) if teacher else None
  rule = optimizer(config.optimizer, config.train.steps)
  state = initial_state(model, distiller, rule, config.seed, (teacher, teacher_variables))
  if config.train.init_backbone:
    state = torch_weights.start_from(state, config.train.init_backbone)
  state = layout.put_state(state)
  step_fn = layout.compile(make_step(
      model, rule, config, axis_name=layout.axis_name, distiller=distiller, teacher=teacher))
  teacher_variables = layout.put_state(teacher_variables) if teacher else None
  validate = validation(build(config.model), config, validation_sampler)

  with checkpoints.Checkpoints(workdir) as saved:
    if saved.last_step is not None:
      state = saved.restore(state)
      log.info("%s: resuming at step %d of %d", workdir, int(state.step), config.train.steps)
    start = int(state.step)
    stream = batches(train_sampler, config, start)
    run_log = RunLog(workdir, start, config.train.steps, config.train.batch_size)
    stop = _StopSignal()
    pending, since = [], time.perf_counter()
    try:
      for step in range(start + 1, config.train.steps + 1):
        state, metrics = step_fn(state, layout.put_batch(next(stream)), teacher_variables)
        pending.append(metrics)
        if len(pending) > 1:
          jax.block_until_ready(pending[-2])  # One step in flight: enough to hide the host, and the rate shown is true.
        run_log.advance()
        stopping = stop.asked  # Looked at once per step: the signal may come at any moment.
        last = step == config.train.steps or stopping
        if step % config.train.log_every == 0 or last:
          scalars = average(pending) | {"bad_steps": int(metrics["bad_steps"])}
          now = time.perf_counter()
          scalars["pairs_per_second"] = len(pending) * config.train.batch_size / (now - since)
          scalars["learning_rate"] = float(state.opt_state.hyperparams["learning_rate"])
          run_log.write(step, scalars)
          _stop_if_broken(scalars, workdir, step, config)
          pending, since = [], now
        if step % config.train.checkpoint_every == 0 or last:
          quality = None if stopping else validate(state)
          if quality:
            run_log.write(step, {f"validation/{name}": value for name, value in quality.items()})
          saved.save(state, config, quality)
        if stopping:
          log.info("%s: stopped by signal at step %d, saved; the same command goes on from there", workdir, step)
          break
    finally:
      stop.restore()
      run_log.close()
  return state


def load_teacher(config):
  """The frozen teacher and its variables, or (None, None)."""
  if config.distiller.kind == "none":
    return None, None
  if not config.teacher.checkpoint:
    raise DataError("config.distiller.kind is set but config.teacher.checkpoint is empty: train a teacher first and "
                    "name its workdir, or set --config.distiller.kind=none")
  teacher_config = checkpoints.load_config(config.teacher.checkpoint)
  for side in ("template_side", "search_side"):
    theirs, ours = teacher_config.model[side], config.model[side]
    if theirs != ours:
      raise DataError(f"{config.teacher.checkpoint}: the teacher's {side} is {theirs}, the student's {ours}; they must "
                      f"be equal, set --config.model.{side}={theirs}")
  from siamdff_jax.models.load import load_model

  return load_model(config.teacher.checkpoint)


def batches(sampler: PairSampler, config, start: int):
  return pipeline.batches(
      sampler, config.data, template_side=config.model.template_side, search_side=config.model.search_side,
      seed=config.seed, batch_size=config.train.batch_size, start_step=start, host=jax.process_index(),
      num_hosts=jax.process_count())


def _stop_if_broken(scalars, workdir, step, config):
  if scalars["bad_steps"] >= config.train.max_bad_steps:
    raise DataError(f"{workdir}: the gradient was not finite for {int(scalars['bad_steps'])} steps in a row up to step "
                    f"{step}; the last checkpoint is untouched, try a lower --config.optimizer.learning_rate")


def write_config(config, workdir):
  try:
    os.makedirs(workdir, exist_ok=True)
    with open(os.path.join(workdir, "config.json"), "w") as file:
      file.write(config.to_json_best_effort(indent=2))
  except OSError as error:
    raise DataError(f"{workdir}: cannot be written ({error.strerror or error})") from error


class _StopSignal:
  """Turns SIGTERM (preemption) into a flag that the loop looks at."""

  def __init__(self):
    self.asked = False
    self._previous = signal.signal(signal.SIGTERM, self._ask)

  def _ask(self, *_):
    self.asked = True

  def restore(self):
    signal.signal(signal.SIGTERM, self._previous)
