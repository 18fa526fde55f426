"""Sweeps by Optuna: each trial is one training; any number of processes share the study through a journal file."""

import contextlib
import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import ml_collections
import numpy as np

from input_pipeline.errors import UserError
from siamdff_jax.feeding import sources
from siamdff_jax.parallel import distributed
from siamdff_jax.sweeps import results
from siamdff_jax.sweeps.space import Parameter, apply
from siamdff_jax.training.loop import train
from siamdff_jax.training.workdir_lock import Busy, WorkdirLock

if TYPE_CHECKING:
  import optuna  # An extra.

JOURNAL_FILE, ERROR_FILE = "study.journal", "error.txt"
_STUDY = "sweep"
log = logging.getLogger(__name__)


def run(experiment: ml_collections.ConfigDict, space: Sequence[Parameter], workdir: str, trials: int, seed: int,
        worker: int = 0) -> str:
  """Trains until the study has `trials` trials, in `workdir`/trial_0000 and so on.

  A command that was interrupted is gone on with by the same command: first with the trial it was in, from that
  training's last checkpoint. A failing trial is recorded with its reason and the sweep goes on.

  Args:
    experiment: what is trained; needs validation data.
    space: what varies, from `space.parse`.
    workdir: of the sweep; other processes and hosts may work in it too.
    trials: of the whole study, all workers and earlier runs included.
    seed: of the study. What trial n tries is a function of the seed, the worker and the trials before it.
    worker: the number of this process among those that share `workdir`; an interrupted worker's trial waits for it.

  Returns:
    The table to print.

  Raises:
    UserError: Optuna is not installed; data at fault; another sweep in `workdir`; every trial failed.
  """
  optuna = _optuna()
  results.check_experiment(experiment)
  results.claim(workdir, "optuna", space, experiment, seed)
  with WorkdirLock(workdir, f"worker_{worker}", f"worker {worker} of this sweep is running already",
                   "give this process another --worker number"):
    with _shared(workdir):  # Packs videos once, and shows what is wrong with the data before any trial.
      for entries in (experiment.data.train, experiment.data.validation):
        sources.sampler(entries, experiment, results.trial_folder(workdir, 0))
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(os.path.join(workdir, JOURNAL_FILE)))
    study = optuna.create_study(study_name=_STUDY, storage=storage, direction="maximize", load_if_exists=True)
    for left in _interrupted(study, worker):
      log.info("going on with trial %d", left.number)
      if not _run_trial(study, left.number, _values(space, left.params), experiment, workdir):
        break
    else:
      while True:
        with _shared(workdir):
          if len(study.trials) >= trials:
            break
          trial = _ask(study, space, seed, worker)
        if not _run_trial(study, trial.number, _values(space, trial.params), experiment, workdir):
          break
    with _shared(workdir):
      return results.write(workdir, [_trial(space, t, workdir) for t in study.trials], experiment)


def _optuna() -> ModuleType:
  """The package, an extra of this project.

  Raises:
    UserError: it is not installed.
  """
  try:
    import optuna
  except ImportError as error:
    raise UserError("--engine=optuna needs the extra 'sweep', which is not installed: run "
                    "`python -m pip install -r requirements-sweep.txt`") from error
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  return optuna


def _shared(workdir: str) -> contextlib.AbstractContextManager[None]:
  """What is inside, one process of the sweep does at a time."""
  return results.lock(os.path.join(workdir, "sweep.lock"))


def _ask(study: "optuna.Study", space: Sequence[Parameter], seed: int, worker: int) -> "optuna.Trial":
  """The next trial. The sampler is seeded anew for each: seeded once per process it would repeat itself on resuming."""
  import optuna

  state = np.random.SeedSequence([seed, worker, len(study.trials)]).generate_state(1)
  study.sampler = optuna.samplers.TPESampler(seed=int(state[0]))
  trial = study.ask({p.path: _distribution(p) for p in space})
  trial.set_user_attr("worker", worker)
  return trial


def _distribution(p: Parameter) -> "optuna.distributions.BaseDistribution":
  from optuna import distributions

  if p.kind == "choice":
    return distributions.CategoricalDistribution([_label(v) for v in p.values])
  if p.kind == "integer":
    low, high = map(int, p.bounds)
    return distributions.IntDistribution(low, high)
  return distributions.FloatDistribution(*p.bounds, log=p.kind == "log_uniform")


def _label(value: Any) -> bool | int | float | str | None:
  """A choice as Optuna stores it: tuples by their text."""
  return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _values(space: Sequence[Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
  """Optuna's parameters as values for the config."""
  choices = {p.path: {_label(v): v for v in p.values} for p in space if p.kind == "choice"}
  return {p.path: choices[p.path][params[p.path]] if p.path in choices else params[p.path]
          for p in space if p.path in params}


def _interrupted(study: "optuna.Study", worker: int) -> "list[optuna.trial.FrozenTrial]":
  """Trials that an earlier process with this worker number was in when it ended."""
  import optuna

  running = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING])
  return [t for t in running if t.user_attrs.get("worker") == worker]


def _run_trial(study: "optuna.Study", number: int, values: Mapping[str, Any], experiment: ml_collections.ConfigDict,
               workdir: str) -> bool:
  """Trains trial `number` and tells the study; False when the training was stopped by a signal before its end."""
  import optuna

  folder = results.trial_folder(workdir, number)
  log.info("trial %d: %s", number, ", ".join(f"{path}={value}" for path, value in values.items()))
  try:
    config = apply(experiment, values)
    state = train(config, folder)
    if int(state.step) < config.train.steps:
      return False
    iou = results.best_iou(folder)
  except Busy:  # Somebody trains there by hand: no fault of the trial, which waits for this worker's next start.
    raise
  except Exception as error:  # Whatever breaks one trial must not end a sweep of days; it is recorded and shown.
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    log.warning("trial %d failed: %s", number, reason)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ERROR_FILE), "w") as file:
      file.write(f"{reason}\n\n{traceback.format_exc()}")
    study.tell(number, state=optuna.trial.TrialState.FAIL)
  else:
    log.info("trial %d: validation IoU %.4f", number, iou)
    study.tell(number, iou)
    if distributed.StopSignal.was_asked():
      log.info("%s: stopped by signal after trial %d; the same command goes on", workdir, number)
      return False
  jax.clear_caches()  # Each training compiles its own step; without this they pile up.
  return True


def _trial(space: Sequence[Parameter], frozen: "optuna.trial.FrozenTrial", workdir: str) -> results.Trial:
  """What the study knows of a trial; why one failed stands in its folder."""
  state = {"COMPLETE": "complete", "FAIL": "failed"}.get(frozen.state.name, "running")
  reason = ""
  if state == "failed":
    with open(os.path.join(results.trial_folder(workdir, frozen.number), ERROR_FILE)) as file:
      reason = file.readline().strip()
  return results.Trial(frozen.number, _values(space, frozen.params), state, frozen.value, reason)
