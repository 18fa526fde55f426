"""Sweeps by populations: as many members at a time as this host has devices, then the next ones."""

import contextlib
import glob
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import UserError
from input_pipeline.sampling import PairSampler
from siamdff_jax import distillation
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.feeding import feeds, sources
from siamdff_jax.feeding.augment import augment
from siamdff_jax.models.build import build
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.parallel import distributed
from siamdff_jax.sweeps import results
from siamdff_jax.sweeps.population import PARAMETERS, Population, member
from siamdff_jax.sweeps.space import Parameter, apply, grid, sample
from siamdff_jax.training import same_run
from siamdff_jax.training.logging import append_metrics, drop_metrics_after, read_metrics
from siamdff_jax.training.run_config import write_config
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import initial_state
from siamdff_jax.training.teacher import load_teacher
from siamdff_jax.training.validation import validation
from siamdff_jax.training.workdir_lock import WorkdirLock

log = logging.getLogger(__name__)

_COMMON = "members_{}_{}"  # The folder of the checkpoint of members that are trained side by side, first and last.


def run(experiment: ml_collections.ConfigDict, space: Sequence[Parameter], workdir: str, trials: int, seed: int) -> str:
  """Trains the members in `workdir`/trial_0000 and so on, each of which is a training workdir with checkpoints.

  Where the space consists of choices the members are the first `trials` of all their combinations; otherwise they are
  drawn independently. Interrupted, it goes on from the last checkpoint of the members that were being trained.

  Args:
    experiment: what is trained; needs validation data.
    space: of `population.PARAMETERS` only.
    workdir: of the sweep.
    trials: how many members in all.
    seed: of the draws; the trainings have the experiment's.

  Returns:
    The table to print.

  Raises:
    UserError: a parameter that members of one program cannot differ in; data at fault; every member failed.
  """
  results.check_experiment(experiment)
  for p in space:
    if p.path not in PARAMETERS:
      raise UserError(f"search space: {p.path} cannot differ within a population, only {', '.join(PARAMETERS)} can; "
                      f"use --engine=optuna")
  if jax.process_count() > 1:
    raise UserError("a population runs on one host; give every host its own --workdir and seed, or use --engine=optuna")
  results.claim(workdir, "population", space, experiment, seed)
  if all(p.kind == "choice" for p in space):
    values = grid(space)[:trials]
  else:
    values = [sample(space, seed, number) for number in range(trials)]
  with WorkdirLock(workdir, "sweep", "this sweep is running already"):
    todo = [n for n in range(len(values)) if not _finished(workdir, n, experiment.train.steps)]
    for numbers in _groups(workdir, todo, len(jax.local_devices())):
      if not _train(numbers, [apply(experiment, values[n]) for n in numbers], workdir):
        break
    return results.write(workdir, [_trial(workdir, n, v, experiment) for n, v in enumerate(values)], experiment)


def _groups(workdir: str, todo: Sequence[int], width: int) -> list[list[int]]:
  """Which members are trained side by side, at most `width`; those that were are so again, from their last checkpoint.

  Raises:
    UserError: more members were trained side by side than there are devices now.
  """
  groups: list[list[int]] = []
  for folder in sorted(glob.glob(os.path.join(glob.escape(workdir), _COMMON.format("*", "*")))):
    first, last = (int(number) for number in os.path.basename(folder).split("_")[1:])
    numbers = [number for number in todo if first <= number <= last]
    if len(numbers) > width:
      raise UserError(f"{folder}: {len(numbers)} members were being trained side by side, here are {width} devices; go "
                      "on with as many devices, or remove the folder to train these members from the beginning")
    groups += [numbers] * bool(numbers)
  left = [number for number in todo if not any(number in group for group in groups)]
  return groups + [left[first:first + width] for first in range(0, len(left), width)]


class _Member(NamedTuple):
  """One member's training workdir, config and checkpoints."""

  folder: str
  config: ml_collections.ConfigDict
  saved: Checkpoints


def _train(numbers: Sequence[int], configs: Sequence[ml_collections.ConfigDict], workdir: str) -> bool:
  """Trains the members `numbers` side by side, from their last common checkpoint when there is one.

  Returns:
    Whether they were trained to their end; False when a signal stopped them.
  """
  config, folders = configs[0], [results.trial_folder(workdir, n) for n in numbers]
  samplers = {f"data.{name}": sources.sampler(config.data[name], config, folders[0])
              for name in ("train", "validation")}
  model = build(config.model)
  teacher, teacher_variables = load_teacher(config)
  inputs = same_run.describe(samplers, teacher_variables)
  population, state = _population(model, configs, teacher, teacher_variables)
  validate = validation(model, config, samplers["data.validation"])
  common = os.path.join(workdir, _COMMON.format(f"{numbers[0]:04d}", f"{numbers[-1]:04d}"))
  with contextlib.ExitStack() as stack:
    locks = [stack.enter_context(WorkdirLock(folder)) for folder in folders]
    for folder, mine in zip(folders, configs, strict=True):
      same_run.require(folder, mine, inputs)
    together = stack.enter_context(Checkpoints(common))
    members = [_Member(folder, mine, stack.enter_context(Checkpoints(folder)))
               for folder, mine in zip(folders, configs, strict=True)]
    state, start = _resumed(together, population, state)
    for one in members:
      write_config(one.config, one.folder)
      drop_metrics_after(one.folder, start)
    log.info("members %d to %d, on %d devices", numbers[0], numbers[-1], population.size)
    step, stop = start, distributed.StopSignal()
    stack.callback(stop.restore)
    batches = _batches(samplers["data.train"], config, start)
    for step, reached, metrics in _steps(population, state, batches, teacher_variables, start, config.train.steps):
      stopping, recorded = stop.asked(step), step % config.train.checkpoint_every == 0 or step == config.train.steps
      if recorded or stopping:
        for lock in locks:
          lock.require()
        if recorded:
          _record(step, reached, jax.device_get(metrics), members, validate, inputs)
        together.save(_common_step(reached), config)
      if stopping:
        break
  finished = step == config.train.steps
  if finished:
    shutil.rmtree(common)  # The members have their own.
    if distributed.StopSignal.was_asked():
      log.info("%s: stopped by signal when these members were done; the same command goes on", workdir)
  else:
    log.info("%s: stopped by signal at step %d, saved; the same command goes on from there", common, step)
  stop.raise_if_interrupted()
  return finished and not distributed.StopSignal.was_asked()


def _population(model: SiamDFF, configs: Sequence[ml_collections.ConfigDict], teacher: SiamDFF | None,
                teacher_variables: Any) -> tuple[Population, TrainState]:
  """The members' compiled step, and their state before the first one."""
  config = configs[0]
  distiller = distillation.build(config.distiller) if teacher else None
  population = Population(model, configs, distiller=distiller, teacher=teacher)
  rule = optimizer(config.optimizer, config.train.steps)
  alone = initial_state(model, distiller, rule, config.seed, (teacher, teacher_variables) if teacher else None)
  return population, population.put_state(alone)


def _resumed(together: Checkpoints, population: Population, initial: TrainState) -> tuple[TrainState, int]:
  """The members' state of their last common checkpoint, else `initial`; and its step."""
  if together.last_step is None:
    return initial, 0
  restored = together.restore(_common_step(initial))
  start = int(restored.step)
  return population.put_stacked(restored.replace(step=np.full(population.size, start, np.int32))), start


def _batches(sampler: PairSampler, config: ml_collections.ConfigDict, start: int) -> Iterator[dict[str, jax.Array]]:
  """The members share the seed, so also what is done to the pixels: once for all."""
  prepare = jax.jit(lambda batch: augment(batch, config.seed, config.data.augment))
  return map(prepare, feeds.batches(sampler, config, start))


def _steps(population: Population, state: TrainState, batches: Iterator[dict[str, jax.Array]], teacher_variables: Any,
           start: int, steps: int) -> Iterator[tuple[int, TrainState, dict[str, jax.Array]]]:
  """(number, state, metrics) of every step after `start`; the state is donated to the next."""
  teacher_variables = None if teacher_variables is None else population.put_shared(teacher_variables)
  previous = None
  for step in tqdm(range(start + 1, steps + 1), initial=start, total=steps, unit="step", desc="members", mininterval=2):
    state, metrics = population.step(state, population.put_shared(next(batches)), teacher_variables)
    if previous is not None:
      jax.block_until_ready(previous)  # One step in flight, as in the training loop.
    previous = metrics
    yield step, state, metrics


def _common_step(state: TrainState) -> TrainState:
  """All members are at the same step; checkpoints want it as one number."""
  return state.replace(step=state.step[0])


def _record(step: int, state: TrainState, metrics: Mapping[str, np.ndarray], members: Sequence[_Member],
            validate: Callable[[TrainState], dict[str, float] | None], inputs: Mapping[str, Mapping]) -> None:
  """Evaluates and saves every member, before the common checkpoint: what is saved twice after a kill is the same.

  But not one within non-finite steps, as in the training loop.
  """
  lines = []
  for k, (_, config, saved) in enumerate(members):
    mine, bad_steps = member(state, k), int(metrics["bad_steps"][k])
    quality = {} if bad_steps else validate(mine) or {}
    if not bad_steps:
      saved.save(mine, config, quality["iou"], inputs)
    lines.append({"step": step, "loss": float(metrics["loss"][k]), "bad_steps": bad_steps,
                  "learning_rate": float(mine.opt_state.hyperparams["learning_rate"]),
                  **{f"validation/{name}": value for name, value in quality.items()}})
  for (folder, _, saved), line in zip(members, lines, strict=True):
    saved.wait()  # The last line says that the member is finished: its checkpoint comes first.
    append_metrics(folder, line)


def _finished(workdir: str, number: int, steps: int) -> bool:
  lines = read_metrics(results.trial_folder(workdir, number))
  return bool(lines) and lines[-1]["step"] >= steps


def _trial(workdir: str, number: int, values: dict[str, Any], experiment: ml_collections.ConfigDict) -> results.Trial:
  """A member as a row of the table; one whose gradients were non-finite for too long, or at the end, has failed."""
  if not _finished(workdir, number, experiment.train.steps):
    return results.Trial(number, values, "running")
  folder = results.trial_folder(workdir, number)
  bad_steps = [line["bad_steps"] for line in read_metrics(folder)]
  worst = max(bad_steps)
  if worst >= experiment.train.max_bad_steps or bad_steps[-1]:
    return results.Trial(number, values, "failed", reason=f"the gradient was not finite for {worst} steps in a row")
  return results.Trial(number, values, "complete", results.best_iou(folder))
