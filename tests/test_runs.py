"""Starts of a training in a folder that was used before, non-finite steps, and signals; on a network of two arrays."""

import json
import logging
import math
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import small
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.checkpoints import contents, trained
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.parallel import distributed
from siamdff_jax.training import loop, same_run
from siamdff_jax.training.logging import read_metrics
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.workdir_lock import Busy

STEPS = 4


def config(**changes):
  """Of the smallest experiment; `changes` by path, like {"train.steps": 3}."""
  made = small.config()
  made.data.train = dict(clips=dict(format="antiuav410", root="data", weight=1.0))
  made.optimizer.update(kind="adamw", learning_rate=0.01, warmup_steps=0)
  made.train.update(steps=STEPS, batch_size=8, log_every=1, checkpoint_every=2, max_bad_steps=3)
  made.update_from_flattened_dict(changes)
  return made


def clips(frames=5, seed=0):
  boxes = np.random.default_rng(seed).uniform(1, 9, (frames, 4)).astype(np.float32)
  return [Sequence("clip", None, boxes, np.ones(frames, bool))]


class Trainings:
  """Runs the loop on gradient descent of two arrays. What happens at a step is set by attributes.

  Attributes:
    sequences: the data set.
    bad: (step) -> whether its gradient is not finite.
    at: {step: what is called after it}.
    taken: the steps taken by the last `run`.
    states: (learning rate used, weight decay used) of them.
  """

  def __init__(self, workdir):
    self.workdir, self.sequences, self.bad, self.at = workdir, clips(), lambda step: False, {}
    self.taken, self.rates = [], []

  def run(self, allow_changes=False, **changes) -> int:
    """The step reached."""
    self.taken, self.rates = [], []
    return int(loop.train(config(**changes), str(self.workdir), allow_changes).step)

  def assemble(self, made, *_):
    rule = optimizer(made.optimizer, made.train.steps)
    params = {"student": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "distiller": {}}

    @jax.jit
    def update(state, factor):
      grads = jax.tree.map(lambda p: p * factor, state.params)
      updates, opt_state = rule.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      good = jnp.isfinite(optax.global_norm(grads))
      new = state.replace(params=params, opt_state=opt_state, ema=params["student"], bad_steps=jnp.int32(0))
      new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state.replace(bad_steps=state.bad_steps + 1))
      return new.replace(step=state.step + 1)

    def step(state):
      number = int(state.step) + 1
      new = update(state, math.nan if self.bad(number) else 1.0)
      self.taken.append(number)
      self.rates.append(tuple(float(new.opt_state.hyperparams[k]) for k in ("learning_rate", "weight_decay")))
      self.at.get(number, lambda: None)()
      return new, {"loss": jnp.float32(1), "bad_steps": new.bad_steps}

    zero = jnp.int32(0)
    return TrainState(zero, params, {}, rule.init(params), params["student"], zero), step, None

  def saved(self) -> list[int]:
    return sorted(int(path.name) for path in (self.workdir / contents.FOLDER).iterdir() if path.name.isdigit())

  def files(self) -> dict:
    """What a refused command must not change."""
    return {path: path.read_bytes() for path in self.workdir.rglob("*") if path.is_file()}


@pytest.fixture
def trainings(monkeypatch, tmp_path):
  made = Trainings(tmp_path / "run")

  def sampler(entries, *_):
    return types.SimpleNamespace(sequences=made.sequences) if entries else None

  def compiled(step, *_):
    return lambda state, *_: step(state)

  monkeypatch.setattr(loop.layouts, "make_layout", lambda *_, **__: types.SimpleNamespace(compile=compiled))
  monkeypatch.setattr(loop.sources, "sampler", sampler)
  monkeypatch.setattr(loop.feeds, "make", lambda *_: types.SimpleNamespace(prepare=None, whole=(), replicated={}))
  monkeypatch.setattr(loop.meter.Meter, "take", lambda self, feed: None)
  monkeypatch.setattr(loop, "assemble", made.assemble)
  return made


@pytest.fixture
def said(caplog):
  caplog.set_level(logging.INFO, "siamdff_jax")
  return caplog


# --- another config


def test_a_tracker_of_version_0_1_0_is_the_same_under_its_present_names():
  """Its settings were in no groups, and what they did not say was as in the plain follower."""
  ours = same_run.plain(small.config())
  assert same_run.differences({**ours, "tracker": {}}, ours) == []
  assert same_run.differences({**ours, "tracker": {"tiles": 8, "size": {"hold": 0.3}}}, ours) == [
      ("tracker.look.tiles", 8, 0), ("tracker.memory.size_hold", 0.3, 0.2)]


@pytest.mark.parametrize("changes, listed", [
    ({"seed": 1}, "--config.seed 0 -> 1"),
    ({"optimizer.learning_rate": 0.02}, "--config.optimizer.learning_rate 0.01 -> 0.02"),
    ({"model.heads": 4, "data.pairs.negative": 0.5},
     "--config.data.pairs.negative 0.15 -> 0.5; --config.model.heads 2 -> 4"),
    ({"train.steps": 3}, "--config.train.steps 4 -> 3"),
    ({"train.steps": 8}, "--config.train.steps 4 -> 8"),
    ({"data.train": dict(birds=dict(format="antiuav410", root="data", weight=1.0))},
     "--config.data.train.birds.weight not set -> 1.0; --config.data.train.clips.weight 1.0 -> not set"),
    ({"tracker.look.tiles": 8}, "--config.tracker.look.tiles 0 -> 8"),
])
def test_another_config_is_refused_by_what_differs_and_nothing_changes(trainings, changes, listed):
  trainings.run()
  before = trainings.files()
  with pytest.raises(UserError) as error:
    trainings.run(**changes)
  assert f"{trainings.workdir}: was trained up to step 4 with something else: {listed}; choose" in str(error.value)
  assert "--allow_changes" in str(error.value) and "\n" not in str(error.value)
  assert trainings.files() == before and not trainings.taken


def test_what_is_not_learned_from_may_change(trainings, said):
  trainings.at[3] = lambda: os.kill(os.getpid(), signal.SIGTERM)
  trainings.run()
  trainings.at.clear()
  assert trainings.run(**{"data.workers": 7, "data.records": "elsewhere", "train.checkpoint_every": 1, "layout.kind":
                          "mesh", "train.log_every": 2, "train.max_bad_steps": 9}) == STEPS
  assert trainings.taken == [4] and "resuming at step 3 of 4" in said.text


def test_a_finished_training_says_so_and_does_nothing(trainings, said):
  trainings.run()
  before = trainings.files()
  assert trainings.run() == STEPS
  assert "step 4 of 4: finished" in said.text and "resuming" not in said.text
  assert trainings.run(allow_changes=True, **{"train.steps": 2}) == STEPS
  assert "step 4 of 2: finished" in said.text and "resuming" not in said.text
  assert trainings.files() == before and not trainings.taken


def test_with_the_flag_a_training_is_lengthened(trainings, said):
  trainings.run()
  assert trainings.run(allow_changes=True, **{"train.steps": 6}) == 6
  assert trainings.taken == [5, 6]
  assert "other values than those of its checkpoint of step 4: --config.train.steps 4 -> 6" in said.text
  assert json.loads((trainings.workdir / "config.json").read_text())["train"]["steps"] == 6
  said.clear()
  assert trainings.run(**{"train.steps": 6}) == 6 and "other values" not in said.text  # It is this config's now.


def test_the_new_rate_and_weight_decay_are_used(trainings):
  trainings.run(**{"optimizer.final_fraction": 1.0})
  assert trainings.rates[-1] == pytest.approx((0.01, 1e-4))
  trainings.run(allow_changes=True, **{"train.steps": 6, "optimizer.learning_rate": 0.003, "optimizer.final_fraction":
                                       1.0, "optimizer.weight_decay": 0.5})
  assert trainings.rates == [pytest.approx((0.003, 0.5))] * 2


def test_a_folder_without_a_checkpoint_is_anybodys(trainings, said):
  trainings.at[1] = lambda: 1 / 0
  with pytest.raises(ZeroDivisionError):
    trainings.run()
  trainings.at.clear()
  (trainings.workdir / "config.json").write_text("{ half")
  assert trainings.run(seed=5) == STEPS and trainings.taken == [1, 2, 3, 4]
  assert "was used before, but holds no checkpoint; from the beginning" in said.text
  assert json.loads((trainings.workdir / "config.json").read_text())["seed"] == 5


def test_older_checkpoints_lack_keys_and_hold_others(trainings, said):
  """A missing key had its default; one that is gone tells nothing; where nothing is known of the data, places count."""
  trainings.run()
  for step in trainings.saved():
    folder = trainings.workdir / contents.FOLDER / str(step)
    file = folder / "config" / "metadata"
    theirs = json.loads(file.read_text())
    del theirs["train"]["virtual_shards"], theirs["data"]["pairs"]["style"]
    theirs["model"]["forgotten"] = 3
    file.write_text(json.dumps(theirs))
    (folder / "inputs" / "metadata").unlink()
  assert trainings.run() == STEPS and "finished" in said.text
  with pytest.raises(UserError, match=r"with something else: --config.data.pairs.style 0.0 -> 0.5; choose"):
    trainings.run(**{"data.pairs.style": 0.5})
  with pytest.raises(UserError, match="--config.data.train.clips.root 'data' -> 'moved'; choose"):
    trainings.run(**{"data.train.clips.root": "moved"})


# --- other data, another teacher


def test_data_are_known_by_their_labels_wherever_they_lie(trainings, said):
  trainings.run()
  moved = {"data.train.clips.root": "moved", "data.train.clips.format": "packed"}
  assert trainings.run(**moved) == STEPS and "finished" in said.text
  trainings.sequences = clips(seed=1)
  for changes in ({}, moved):
    with pytest.raises(UserError, match="the content of data.train .sequences 1, frames 5, labels .* -> .*labels"):
      trainings.run(**changes)
  trainings.sequences = clips() + clips(7)
  with pytest.raises(UserError, match="-> sequences 2, frames 12, "):
    trainings.run()
  assert trainings.run(allow_changes=True, **{"train.steps": 5}) == 5


def test_a_teacher_is_known_by_its_weights():
  weights = {"params": {"kernel": np.ones((2, 3), np.float32)}}
  known = same_run.describe({}, weights)
  assert known == same_run.describe({"data.train": None}, jax.tree.map(jnp.asarray, weights))
  weights["params"]["kernel"][1, 2] += 1e-6
  assert known != same_run.describe({}, weights)
  assert same_run.describe({}) == {}


# --- non-finite steps


def test_nothing_is_saved_within_a_bad_streak_and_the_first_finite_step_is(trainings, said):
  trainings.bad = lambda step: step in (2, 3, 5)
  assert trainings.run(**{"train.steps": 6}) == 6
  states = {step: bad for step, bad in ((line["step"], line["bad_steps"]) for line in read_metrics(trainings.workdir))}
  assert states == {1: 0, 2: 1, 3: 2, 4: 0, 5: 1, 6: 0}
  assert trainings.saved() == [4, 6]
  assert said.text.count("within non-finite steps") == 1


def test_a_broken_run_goes_on_with_a_lower_rate_from_before_the_streak(trainings, said):
  too_high = 0.005
  trainings.bad = lambda step: step > 3 and (not trainings.rates or trainings.rates[-1][0] > too_high)
  settings = {"train.steps": 12, "optimizer.final_fraction": 1.0}
  with pytest.raises(UserError, match="not finite for 3 steps in a row up to step 6; the checkpoint of step 2 is from "
                     "before, go on from it with a lower --config.optimizer.learning_rate and --allow_changes$"):
    trainings.run(**settings)
  assert trainings.saved() == [2]
  with pytest.raises(UserError, match="learning_rate 0.01 -> 0.001"):  # As the sentence says, not without the flag.
    trainings.run(**settings, **{"optimizer.learning_rate": 0.001})
  assert trainings.run(allow_changes=True, **settings, **{"optimizer.learning_rate": 0.001}) == 12
  assert trainings.taken == list(range(3, 13)) and trainings.saved()[-1] == 12


def test_a_checkpoint_after_which_nothing_was_finite_is_named(trainings):
  trainings.bad = lambda step: step > 2
  with pytest.raises(UserError, match=r"no step since was finite: .*move .*/checkpoints/2 away"):
    trainings.run(**{"train.steps": 12})


def test_a_run_that_breaks_before_its_first_checkpoint_says_that_nothing_is_saved(trainings):
  trainings.bad = lambda step: True
  with pytest.raises(UserError, match=r"not once was it finite, so look at --config\.loss\.weights .* before you try"):
    trainings.run()
  trainings.bad = lambda step: step > 1
  with pytest.raises(UserError, match="nothing of this run is saved, start it again with a lower"):
    trainings.run(**{"train.checkpoint_every": STEPS})
  trainings.bad = lambda step: False
  assert trainings.run(**{"optimizer.learning_rate": 0.001}) == STEPS  # Without a flag: there is nothing to protect.


def test_a_checkpoint_from_within_a_streak_that_an_older_version_saved_gets_its_patience_back(trainings):
  with Checkpoints(str(trainings.workdir)) as saved:
    state, _, _ = trainings.assemble(config())
    saved.save(state.replace(step=jnp.int32(1), bad_steps=jnp.int32(2)), config())
  trainings.bad = lambda step: step == 2  # The third bad one, counted on.
  assert trainings.run() == STEPS


def test_a_run_that_ends_within_a_bad_streak_is_an_error(trainings):
  trainings.bad = lambda step: step == STEPS
  with pytest.raises(UserError, match="not finite for 1 steps in a row up to step 4; the checkpoint of step 2"):
    trainings.run()
  assert trainings.saved() == [2]


def test_a_signal_within_a_bad_streak_leaves_the_last_good_checkpoint(trainings, said):
  trainings.bad = lambda step: step == 3
  trainings.at[3] = lambda: os.kill(os.getpid(), signal.SIGTERM)
  assert trainings.run() == 3
  assert trainings.saved() == [2] and "the same command goes on from step 2" in said.text
  trainings.at.clear()
  trainings.bad = lambda step: False
  assert trainings.run() == STEPS and trainings.taken == [3, 4]


@pytest.mark.parametrize("first", [math.nan, math.inf])
def test_a_quality_that_is_no_number_is_never_the_best(trainings, monkeypatch, first):
  values = iter([first, 0.5, 0.4, 0.3])
  monkeypatch.setattr(loop.Quality, "__call__", lambda *_: next(values))
  trainings.run(**{"train.steps": 8})
  assert trained.find(str(trainings.workdir)).endswith("/4") and trainings.saved() == [4, 6, 8]


# --- signals


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_same_command_goes_on(trainings, said, sent):
  before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
  trainings.at[3] = lambda: os.kill(os.getpid(), sent)
  assert trainings.run() == 3
  assert trainings.saved() == [2, 3] and "stopped by signal at step 3, saved" in said.text
  assert {number: signal.getsignal(number) for number in before} == before
  trainings.at.clear()
  assert trainings.run() == STEPS and trainings.taken == [4]


def test_ctrl_c_saves_and_then_interrupts_what_would_follow(trainings, said, capfd):
  trainings.at[3] = lambda: os.kill(os.getpid(), signal.SIGINT)
  with pytest.raises(KeyboardInterrupt):
    trainings.run()
  assert trainings.saved() == [2, 3] and trainings.taken == [1, 2, 3]
  assert "stopped by signal at step 3, saved" in said.text
  assert "stopping after this step, then saving; Ctrl-C again stops at once" in capfd.readouterr().err
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_interrupts_at_once(trainings):
  def twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)

  trainings.at[3] = twice
  with pytest.raises(KeyboardInterrupt):
    trainings.run()
  assert trainings.saved() == [2]
  trainings.at.clear()
  assert trainings.run() == STEPS and trainings.taken == [3, 4]


def test_a_signal_after_the_last_step_is_known_to_who_has_more_to_do(trainings):
  trainings.at[STEPS] = lambda: os.kill(os.getpid(), signal.SIGTERM)
  assert trainings.run() == STEPS and distributed.StopSignal.was_asked()
  trainings.at.clear()
  trainings.run(**{"train.steps": STEPS + 1}, allow_changes=True)
  assert not distributed.StopSignal.was_asked()


def test_a_signal_that_is_ignored_stays_so():
  """nohup, and what a shell's script starts in the background."""
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    stop = distributed.StopSignal()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.asked(1)
    stop.restore()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


# --- two in one folder


def test_a_second_training_in_the_folder_is_refused_and_the_first_goes_on(trainings, tmp_path):
  other = Trainings(tmp_path / "run")

  def start_another():
    trainings.at.clear()
    with pytest.raises(Busy, match=f"process {os.getpid()} on host"):
      other.run(seed=9)

  trainings.at[3] = start_another
  assert trainings.run() == STEPS
  assert [line["step"] for line in read_metrics(trainings.workdir)] == [1, 2, 3, 4] and trainings.saved() == [2, 4]


def test_who_has_lost_the_folder_saves_no_more(trainings):
  def taken_over():
    theirs = {"host": "gpu7", "process": 1, "token": "theirs", "since": "now"}
    (trainings.workdir / "training.holder.json").write_text(json.dumps(theirs))

  trainings.at[3] = taken_over
  with pytest.raises(Busy, match="process 1 on host gpu7"):
    trainings.run()
  assert trainings.saved() == [2]
