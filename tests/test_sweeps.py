"""Sweeps: the two engines, and that a population's members are what they would be alone."""

import csv
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import types

import jax
import ml_collections
import numpy as np
import pytest
from conftest import ROOT
from jax.experimental.compilation_cache import compilation_cache

import small
from input_pipeline.errors import UserError
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.feeding import sources
from siamdff_jax.models.build import build
from siamdff_jax.parallel import distributed
from siamdff_jax.sweeps import optuna_engine, population_engine, results, space
from siamdff_jax.sweeps.population import Population, member
from siamdff_jax.sweeps.sweep import sweep
from siamdff_jax.training.logging import read_metrics
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state, make_step
from siamdff_jax.training.workdir_lock import Busy

LEARNING_RATE = dict(parameter="optimizer.learning_rate", kind="log_uniform", low=1e-4, high=1e-1)


# --- the population

def _tiny(**optimizer):
  """The smallest network that there is: what is tested here does not depend on its modules, and it compiles fast."""
  experiment = small.config(use_sten=False, use_intensity=False, use_dsfam=False, use_dcfam=False, features=8)
  experiment.optimizer.update(optimizer)
  return experiment


@pytest.fixture
def compile_cache(tmp_path_factory):
  """Equal programs are compiled once in all tests that ask for this."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = [getattr(jax.config, name) for name in names]
  for name, value in zip(names, (str(tmp_path_factory.getbasetemp() / "compiled"), 0), strict=True):
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in zip(names, before, strict=True):
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def _members(count):
  base = _tiny(kind="adamw", warmup_steps=2)
  base.train.update(steps=3, batch_size=4)
  rates, decays = [1e-3, 3e-3, 1e-2, 0.1], [1e-4, 0.0, 0.1, 1.0]
  return [space.apply(base, {"optimizer.learning_rate": rates[k], "optimizer.weight_decay": decays[k]})
          for k in range(count)]


def _after_three_steps(configs, devices):
  model, rule = build(configs[0].model), optimizer(configs[0].optimizer, 3)
  population = Population(model, configs, devices=devices)
  state = population.put_state(initial_state(model, None, rule, seed=0))
  for i in range(3):
    state, _ = population.step(state, population.put_shared(small.batch(i, 4)))
  return [member(state, k) for k in range(len(configs))]


def test_members_are_what_they_would_be_alone(compile_cache):
  configs, devices = _members(4), jax.devices()[:4]
  together = _after_three_steps(configs, devices)
  alone = _after_three_steps(configs[2:3], devices)[0]
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(together[2]), jax.tree.leaves(alone), strict=True):
    assert a.dtype == b.dtype and np.array_equal(a, b), jax.tree_util.keystr(path)
  assert not np.array_equal(*(jax.tree.leaves(together[k].params)[0] for k in (1, 2)))


@pytest.mark.slow
def test_members_are_what_the_training_step_makes(compile_cache):
  """To rounding: there the learning rate is a constant and the program one for a single device."""
  configs = _members(4)
  together = _after_three_steps(configs, jax.devices()[:4])
  config = configs[2]
  model, rule = build(config.model), optimizer(config.optimizer, 3)
  step = jax.jit(make_step(model, rule, config))
  state = initial_state(model, None, rule, seed=0)
  for i in range(3):
    state, _ = step(state, small.batch(i, 4))

  def close(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in pairs)

  assert close(together[2].params, state.params) and close(together[2].ema, state.ema)
  for name, value in state.opt_state.hyperparams.items():
    assert float(together[2].opt_state.hyperparams[name]) == pytest.approx(float(value), rel=1e-6)
  assert not any(close(together[k].params, state.params) for k in (0, 1, 3))  # The tolerance tells members apart.


def test_population_refuses_more_members_than_devices():
  with pytest.raises(ValueError, match="4 members do not fit on 2 devices"):
    Population(build(small.config().model), _members(4), devices=jax.devices()[:2])


# --- the engines

def _experiment(data=""):
  experiment = _tiny()
  entry = dict(simulated=dict(format="antiuav410", root=str(data), weight=1.0))
  experiment.data.update(train=entry, validation=entry, workers=1)
  experiment.data.pairs.max_gap = 3
  experiment.train.update(steps=2, batch_size=2, checkpoint_every=1, validation_pairs=2, log_every=1)
  return experiment


def _config(experiment, *entries):
  return ml_collections.ConfigDict(dict(seed=3, space=list(entries or [LEARNING_RATE]), experiment=experiment))


@pytest.fixture
def fake_training(monkeypatch):
  """Trainings that take no time: IoU from the learning rate, best at 0.01; returns the list of those made."""
  pytest.importorskip("optuna", reason="the extra 'sweep' (requirements-sweep.txt) is not installed")
  made = []

  def train(config, folder):
    rate = config.optimizer.learning_rate
    made.append((os.path.basename(folder), rate))
    if train.broken:
      raise train.broken
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "metrics.jsonl"), "w") as file:
      file.write(json.dumps({"step": 2, "validation/iou": 1 - abs(np.log10(rate) + 2) / 2}) + "\n")
    return ml_collections.ConfigDict(dict(step=config.train.steps))

  train.broken = None
  made_and_train = (made, train)
  monkeypatch.setattr(optuna_engine, "train", train)
  monkeypatch.setattr(sources, "sampler", lambda *_: None)
  return made_and_train


def _table(workdir):
  with open(workdir / "trials.csv") as file:
    return list(csv.DictReader(file))


def test_resuming_a_study_adds_trials(fake_training, tmp_path):
  made, _ = fake_training
  config = _config(_experiment())
  sweep(config, str(tmp_path / "a"), 2)
  sweep(config, str(tmp_path / "a"), 2)
  text = sweep(config, str(tmp_path / "a"), 5)
  assert [name for name, _ in made] == [f"trial_{n:04d}" for n in range(5)]
  assert len({rate for _, rate in made}) == 5  # Other values each time.
  rows = _table(tmp_path / "a")
  assert [float(row["optimizer.learning_rate"]) for row in rows] == [rate for _, rate in made]
  best = max(rows, key=lambda row: float(row["iou"]))
  assert f"best: trial {best['trial']}," in text
  stored = json.load(open(tmp_path / "a" / "best_config.json"))
  assert stored["optimizer"]["learning_rate"] == float(best["optimizer.learning_rate"])

  sweep(config, str(tmp_path / "b"), 5)  # At one go: the same study.
  assert made[5:] == made[:5]


def test_an_interrupted_trial_is_gone_on_with(fake_training, tmp_path):
  made, train = fake_training
  config = _config(_experiment())
  train.broken = KeyboardInterrupt()
  with pytest.raises(KeyboardInterrupt):
    sweep(config, str(tmp_path), 2)
  train.broken = None
  sweep(config, str(tmp_path), 2, worker=1)  # Another worker leaves it alone.
  assert [name for name, _ in made] == ["trial_0000", "trial_0001"]
  assert [row["state"] for row in _table(tmp_path)] == ["running", "complete"]
  sweep(config, str(tmp_path), 2)
  assert made[2] == made[0] and len(made) == 3
  assert [row["state"] for row in _table(tmp_path)] == ["complete", "complete"]


def test_a_signal_after_a_trials_last_step_ends_the_sweep(fake_training, tmp_path, monkeypatch):
  made, _ = fake_training
  monkeypatch.setattr(distributed.StopSignal, "was_asked", lambda: len(made) == 2)
  sweep(_config(_experiment()), str(tmp_path), 4)
  assert [row["state"] for row in _table(tmp_path)] == ["complete"] * 2
  monkeypatch.undo()


def test_a_sweep_without_a_trial_is_anybodys(fake_training, tmp_path, monkeypatch):
  """A first start with a mistake that only the data show must not keep its correction out."""
  def wrong(*_):
    raise UserError("no labels")

  with monkeypatch.context() as patch:
    patch.setattr(optuna_engine.sources, "sampler", wrong)
    with pytest.raises(UserError, match="no labels"):
      sweep(_config(_experiment()), str(tmp_path), 1)
  sweep(_config(space.apply(_experiment(), {"train.batch_size": 4})), str(tmp_path), 1)


def test_members_that_were_trained_side_by_side_are_so_again(tmp_path):
  def groups(todo, width):
    return population_engine._groups(str(tmp_path), todo, width)

  assert groups([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3], [4]]
  (tmp_path / "members_0002_0003").mkdir()
  assert groups([0, 2, 3, 4], 3) == [[2, 3], [0, 4]]
  with pytest.raises(UserError, match="members_0002_0003: 2 members were .* side by side, here are 1 devices"):
    groups([0, 2, 3, 4], 1)


def test_failing_trials_are_recorded(fake_training, tmp_path):
  _, train = fake_training
  config = _config(_experiment())
  train.broken = ValueError("batch size 3 cannot be shared")
  with pytest.raises(UserError, match=r"none of the 2 trials succeeded; trial 0: ValueError: batch size 3"):
    sweep(config, str(tmp_path), 2)
  train.broken = None
  text = sweep(config, str(tmp_path), 3)
  rows = _table(tmp_path)
  assert [row["state"] for row in rows] == ["failed", "failed", "complete"]
  assert rows[0]["reason"] == "ValueError: batch size 3 cannot be shared" and "best: trial 2" in text
  assert "Traceback" in (tmp_path / "trial_0000" / "error.txt").read_text()


def test_choices_of_tuples(fake_training, tmp_path):
  config = _config(_experiment(), LEARNING_RATE, dict(parameter="model.backbone.blocks", kind="choice",
                                                      values=[(1, 1, 1, 1), (1, 2, 2, 1)]))
  sweep(config, str(tmp_path), 2)
  assert json.load(open(tmp_path / "best_config.json"))["model"]["backbone"]["blocks"] in ([1, 1, 1, 1], [1, 2, 2, 1])


def test_one_folder_one_sweep_and_one_process_per_worker(fake_training, tmp_path):
  experiment = _experiment()
  sweep(_config(experiment), str(tmp_path), 1)
  with pytest.raises(UserError, match="another space"):
    sweep(_config(experiment, dict(LEARNING_RATE, high=1.0)), str(tmp_path), 1)
  with pytest.raises(UserError, match="another engine"):
    sweep(_config(experiment), str(tmp_path), 1, "population")
  elsewhere = space.apply(experiment, {"data.train.simulated.root": "/elsewhere"})
  sweep(_config(elsewhere), str(tmp_path), 1)  # The same data at another place is the same sweep.
  with (results.lock(str(tmp_path / "worker_0.lock")),
        pytest.raises(UserError, match="worker 0 of this sweep is running already")):
    sweep(_config(experiment), str(tmp_path), 2)
  with pytest.raises(UserError, match=r"another experiment \(--config.experiment.train.batch_size 2 -> 4\); give"):
    sweep(_config(space.apply(experiment, {"train.batch_size": 4})), str(tmp_path), 1)
  with pytest.raises(UserError, match=r"another experiment \(--config.experiment.train.checkpoint_every 1 -> 2\)"):
    sweep(_config(space.apply(experiment, {"train.checkpoint_every": 2})), str(tmp_path), 1)


def test_a_trial_that_somebody_trains_by_hand_ends_the_sweep_and_is_gone_on_with(fake_training, tmp_path):
  made, train = fake_training
  train.broken = Busy("trial_0000: a training is writing there already")
  with pytest.raises(Busy, match="writing there already"):
    sweep(_config(_experiment()), str(tmp_path), 1)
  train.broken = None
  sweep(_config(_experiment()), str(tmp_path), 1)
  assert [name for name, _ in made] == ["trial_0000"] * 2
  assert [row["state"] for row in _table(tmp_path)] == ["complete"]


def test_a_file_system_without_locks_is_one_sentence(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.ENOTSUP, "Operation not supported")

  monkeypatch.setattr(fcntl, "flock", refuse)
  with pytest.raises(UserError, match=r"sweep.lock: cannot be locked \(Operation not supported\)"):
    with results.lock(str(tmp_path / "sweep.lock")):
      pass


def test_a_member_within_non_finite_steps_is_not_saved(monkeypatch, tmp_path):
  """The others are; and one that ends so has failed."""
  saved, experiment = [], _experiment()
  folders = [results.trial_folder(str(tmp_path), n) for n in range(2)]
  for folder in folders:
    os.makedirs(folder)

  class Saved:
    def __init__(self, number):
      self._number = number

    def save(self, state, config, quality, inputs):
      saved.append((self._number, quality))

    def wait(self):
      pass

  rates = types.SimpleNamespace(hyperparams={"learning_rate": 0.1})
  monkeypatch.setattr(population_engine, "member", lambda state, k: types.SimpleNamespace(opt_state=rates))
  members = [(folder, experiment, Saved(n)) for n, folder in enumerate(folders)]
  for step, bad_steps in ((1, [0, 0]), (2, [0, 3])):
    metrics = {"loss": np.ones(2), "bad_steps": np.array(bad_steps)}
    population_engine._record(step, None, metrics, members, lambda state: {"iou": 0.5}, {})
  assert saved == [(0, 0.5), (1, 0.5), (0, 0.5)]
  assert read_metrics(folders[1])[-1].keys() == {"step", "loss", "bad_steps", "learning_rate"}
  trials = [population_engine._trial(str(tmp_path), n, {}, experiment) for n in range(2)]
  assert [trial.state for trial in trials] == ["complete", "failed"] and "not finite for 3 steps" in trials[1].reason
  assert population_engine._trial(str(tmp_path), 2, {}, experiment).state == "running"


def test_sweeps_that_cannot_start(tmp_path):
  with pytest.raises(UserError, match="no `experiment`"):
    sweep(small.config(), str(tmp_path), 1)
  experiment = _experiment()
  experiment.data.validation = {}
  with pytest.raises(UserError, match="no validation data"):
    sweep(_config(experiment), str(tmp_path), 1, "population")
  with pytest.raises(UserError, match="cannot differ within a population"):
    sweep(_config(_experiment(), dict(parameter="model.heads", kind="integer", low=1, high=2)), str(tmp_path), 1,
          "population")


def test_missing_optuna_names_the_extra(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "optuna", None)
  with pytest.raises(UserError, match=r"extra 'sweep'.*pip install -r requirements-sweep.txt"):
    sweep(_config(_experiment()), str(tmp_path), 1)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "simulated"
  write_dataset(folder, 2, 6, 0, 96, 80).unlink()  # Beside it the reader takes the folder for one sequence.
  return folder


@pytest.mark.slow
def test_population_sweep_trains_and_resumes(simulated, tmp_path, monkeypatch, compile_cache):
  """On all devices that there are; the third member is added in a second round."""
  config = _config(_experiment(simulated), dict(parameter="optimizer.learning_rate", kind="choice",
                                                values=[1e-4, 1e-3, 1e-2]))
  whole = sweep(config, str(tmp_path / "whole"), 2, "population")
  assert "trial_000" in whole and [row["state"] for row in _table(tmp_path / "whole")] == ["complete"] * 2

  # Killed before the second step, then again: the same; and the third member of the grid is added.
  real, calls = population_engine._record, []

  def killed(*args):
    calls.append(args[0])
    if args[0] == 2:
      raise KeyboardInterrupt
    real(*args)

  monkeypatch.setattr(population_engine, "_record", killed)
  with pytest.raises(KeyboardInterrupt):
    sweep(config, str(tmp_path / "parts"), 2, "population")
  monkeypatch.setattr(population_engine, "_record", lambda *args: (calls.append(args[0]), real(*args)))
  sweep(config, str(tmp_path / "parts"), 2, "population")
  assert calls == [1, 2, 2]
  assert (tmp_path / "parts" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()
  sweep(config, str(tmp_path / "parts"), 3, "population")
  assert calls == [1, 2, 2, 1, 2] and len(_table(tmp_path / "parts")) == 3
  assert sorted(os.listdir(tmp_path / "parts" / "trial_0002" / "checkpoints"))[-1] == "2"

  # Stopped by a signal in the first step: the sweep says how far it is, and the same command goes on.
  monkeypatch.setattr(population_engine, "_record", real)
  put_shared = Population.put_shared

  def stopped(self, tree):
    os.kill(os.getpid(), sent)
    return put_shared(self, tree)

  for sent, step in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
    monkeypatch.setattr(Population, "put_shared", stopped)
    if sent == signal.SIGTERM:
      assert "no trial is complete yet" in sweep(config, str(tmp_path / "stopped"), 2, "population")
      assert [row["state"] for row in _table(tmp_path / "stopped")] == ["running"] * 2
    else:
      with pytest.raises(KeyboardInterrupt):
        sweep(config, str(tmp_path / "stopped"), 2, "population")
    assert [line["step"] for line in read_metrics(str(tmp_path / "stopped" / "trial_0000"))][-1:] == [step]
  monkeypatch.setattr(Population, "put_shared", put_shared)
  sweep(config, str(tmp_path / "stopped"), 2, "population")
  assert (tmp_path / "stopped" / "trials.csv").read_text() == (tmp_path / "whole" / "trials.csv").read_text()


@pytest.mark.slow
def test_optuna_sweep_by_the_script(simulated, tmp_path):
  pytest.importorskip("optuna", reason="the extra 'sweep' (requirements-sweep.txt) is not installed")
  small_network = {"model.features": 16, "model.heads": 2, "model.tower_depth": 1,
                   "model.backbone.widths": (8, 8, 8, 8), "model.backbone.blocks": (1, 1, 1, 1),
                   "model.use_sten": False, "model.use_intensity": False, "model.use_dsfam": False,
                   "model.use_dcfam": False, "train.steps": 2, "train.batch_size": 2,
                   "train.checkpoint_every": 1, "train.validation_pairs": 2, "data.workers": 1,
                   "data.train.simulated.root": simulated, "data.validation.simulated.root": simulated}
  command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), f"--config={ROOT}/configs/sweep_quickstart.py",
             f"--workdir={tmp_path / 'sweep'}"]
  command += [f"--config.experiment.{key}={value}" for key, value in small_network.items()]
  done = subprocess.run([*command, "--trials=2"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "best: trial" in done.stdout
  rows = _table(tmp_path / "sweep")
  assert [row["state"] for row in rows] == ["complete"] * 2
  best = [results.best_iou(str(tmp_path / "sweep" / f"trial_{n:04d}")) for n in range(2)]
  assert [float(row["iou"]) for row in rows] == best
