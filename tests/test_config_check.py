"""Values of a config that make no sense are refused when a command starts, all of them in one sentence."""

import json
import logging

import ml_collections
import pytest
from ml_collections.config_flags import config_path

import small
from configs import (
  ablation,
  base,
  quickstart,
  shipped,
  siamdff_lite,
  siamdff_r18,
  siamdff_r50,
  svanstrom,
  sweep_quickstart,
)
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints.trained import shipped as shipped_models
from siamdff_jax.config_check import commands
from siamdff_jax.config_check.experiment import SECTIONS, check
from siamdff_jax.experiments.ablation import ablate
from siamdff_jax.sweeps import space
from siamdff_jax.sweeps.sweep import sweep
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.settings import PLAIN
from siamdff_jax.training import loop

SOURCE = dict(format="antiuav410", root="somewhere", weight=1.0)
NAN, INFINITE = float("nan"), float("inf")


def changed(changes: dict) -> ml_collections.ConfigDict:
  """configs/base.py with {"train.steps": -5}, whatever its type was."""
  config = base.get_config()
  config.data.train = dict(made=SOURCE)
  for path, value in changes.items():
    with config.ignore_type():
      config_path.set_value(path, config, value, accept_new_attributes=True)
  return config


def test_what_comes_with_the_project_makes_sense():
  for made in (base.get_config(), siamdff_r50.get_config(), siamdff_r18.get_config(), siamdff_lite.get_config(),
               *(module.get_config(role) for module in (svanstrom, quickstart) for role in ("teacher", "student")),
               shipped.get_config("r18"), shipped.get_config("lite"), small.config()):
    check(made)
  for role in ("teacher", "student"):
    made = sweep_quickstart.get_config(role)
    commands.check_sweep(made, space.parse(made.space, made.experiment), space.apply)
  commands.check_ablation(ablation.get_config())


def test_every_value_of_the_base_config_has_a_rule():
  """In the tables' own names, so that a value that is added is not forgotten."""
  config = base.get_config()
  assert set(SECTIONS) | {"tracker"} == set(config)
  for section in ("train", "optimizer", "evaluation", "layout", "data", "distiller", "teacher"):
    assert set(SECTIONS[section]) == set(config[section]), section
  assert set(SECTIONS["data"]["augment"]) == set(config.data.augment)
  assert set(SECTIONS["data"]["pairs"]) == set(config.data.pairs)


@pytest.mark.parametrize("path, value, expected", [
    ("optimizer.learning_rate", -0.001, "above 0"), ("optimizer.learning_rate", 0.0, "above 0"),
    ("optimizer.learning_rate", NAN, "a finite number"), ("optimizer.weight_decay", INFINITE, "a finite number"),
    ("optimizer.warmup_steps", -1, "at least 0"), ("optimizer.final_fraction", 1.5, "from 0 to 1"),
    ("optimizer.clip_norm", 0.0, "above 0"), ("optimizer.kind", "adam", "'adamw', 'sgd'; did you mean 'adamw'"),
    ("optimizer.backbone_factor", -1.0, "at least 0"), ("optimizer.backbone_freeze_steps", -1, "at least 0"),
    ("train.steps", 0, "a whole number of at least 1"), ("train.steps", -5, "a whole number of at least 1"),
    ("train.steps", 1e4, "a whole number"), ("train.batch_size", 0, "at least 1"),
    ("train.batch_size", -4, "at least 1"),
    ("train.batch_size", True, "a whole number"), ("train.checkpoint_every", 0, "at least 1"),
    ("train.log_every", 0, "at least 1"), ("train.max_bad_steps", 0, "at least 1"),
    ("train.accumulate", 0, "at least 1"), ("train.ema_decay", 1.0, "below 1"), ("train.ema_decay", -0.1, "at least 0"),
    ("train.validation_pairs", 0, "from 1 to"), ("train.profile_steps", -1, "at least 0"),
    ("train.virtual_shards", -2, "at least 0"), ("train.init_checkpoint", None, "a text"),
    ("seed", -1, "from 0 to 4294967295"), ("seed", 2**32, "from 0 to 4294967295"), ("seed", 0.5, "a whole number"),
    ("model.heads", 0, "at least 1"), ("model.features", -8, "at least 1"), ("model.tower_depth", -1, "at least 0"),
    ("model.template_side", 128, r"8 n \+ 7"), ("model.search_side", 7, r"8 n \+ 7"), ("model.std", 0.0, "above 0"),
    ("model.mean", 115.0, "from 0 to 1"), ("model.norm", "bach", "did you mean 'batch'"),
    ("model.dtype", "bfloat", "did you mean 'bfloat16'"), ("model.correlation_padding", -1, "at least 0"),
    ("model.use_sten", 1, "True or False"), ("model.backbone.kind", "resnt", "did you mean 'resnet'"),
    ("model.backbone.blocks", (2, 2, 2), "4 whole numbers of at least 1"),
    ("model.backbone.widths", ("abc",), "4 whole numbers"), ("model.backbone.stem_kernel", 4, "odd"),
    ("distiller.kind", "contextul", "did you mean 'contextual'"), ("distiller.weight", -1.0, "at least 0"),
    ("distiller.temperature", 0.0, "above 0, or None"), ("distiller.target_temperature", NAN, "above 0, or None"),
    ("loss.class_kind", "focl", "did you mean 'focal'"), ("loss.nwd_constant", 0.0, "above 0"),
    ("loss.weights['class']", -1.0, "at least 0"), ("data.feed", "devise", "did you mean 'device'"),
    ("data.workers", 0, "from 1 to"), ("data.resident_shards", 0, "at least 1"),
    ("data.train.made.weight", -1.0, "from 0 to"), ("data.train.made.format", "antiuv", "did you mean 'antiuav'"),
    ("data.pairs.negative", 1.5, "from 0 to 1"), ("data.pairs.max_gap", -1, "from 0 to"),
    ("data.pairs.shift", -0.5, "from 0 to 100"), ("data.pairs.max_gap", 2**31, "from 0 to"),
    ("model.features", 2**31, "at least 1"), ("optimizer.learning_rate", 1e30, "at most 1000"),
    ("data.pairs.scale", NAN, "a finite number"),
    ("data.pairs.jitter", 1.0, "below 1"), ("data.augment.flip", 2.0, "from 0 to 1"),
    ("data.augment.noise", -0.1, "from 0 to 1"), ("evaluation.streams", 0, "from 1 to"),
    ("evaluation.protocol", "antiuv", "did you mean 'antiuav'"), ("evaluation.format", "", "one of 'antiuav'"),
    ("layout.kind", "pmpa", "did you mean 'pmap'"), ("layout.fsdp", "yes", "True or False"),
    ("tracker", dict(look=dict(tiles=-1)), "at least 0"), ("train", 3, "a group of values")])
def test_a_value_that_makes_no_sense_is_named(path, value, expected):
  place = "tracker.look.tiles" if path == "tracker" else path
  with pytest.raises(UserError) as caught:
    check(changed({path: value}))
  sentence = str(caught.value)
  assert sentence.startswith(f"--config.{place}=") and sentence.count("expected") == 1
  with pytest.raises(UserError, match=f"expected .*{expected}"):
    check(changed({path: value}))


def test_all_mistakes_are_named_at_once():
  with pytest.raises(UserError) as caught:
    check(changed({"train.steps": 0, "seed": -1, "distiller.kind": "fdg", "model.std": 0.0}))
  for place in ("train.steps=0", "seed=-1", "distiller.kind=fdg", "model.std=0.0"):
    assert str(caught.value).count(f"--config.{place}: expected") == 1
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path, message", [
    ("train.batchsize", r"--config.train.batchsize: no such setting; did you mean 'batch_size'\?"),
    ("trian", "--config.trian: no such setting; did you mean 'train'"),
    ("loss.weights.presense", "did you mean 'presence'"), ("data.pairs.jiter", "did you mean 'jitter'"),
    ("data.augment.compresion", "did you mean 'compression'"), ("data.train.made.rooot", "did you mean 'root'"),
    ("model.backbone.stages", "--config.model.backbone.stages: no such setting"),
    ("tracker.lost_aftr", "did you mean 'belief.lost_after'")])
def test_a_name_that_is_misspelled_in_a_file_is_refused(path, message):
  with pytest.raises(UserError, match=message):
    check(changed({path: 1}))


@pytest.mark.parametrize("group, name", [("train", "log_every"), ("optimizer", "kind"), ("model", "backbone"),
                                         ("loss", "weights"), ("data", "pairs")])
def test_a_name_that_is_missing_is_refused(group, name):
  config = changed({})
  del config[group][name]
  with pytest.raises(UserError, match=f"--config.{group}.{name}: is missing"):
    check(config)


@pytest.mark.parametrize("changes, message", [
    ({"model.heads": 7}, "--config.model.heads=7: expected a divisor of the 256 features"),
    ({"model.template_side": 255, "model.search_side": 127}, "search_side=127: expected at least the template's 255"),
    ({"distiller.kind": "contextual", "distiller.weights": {"contxt": 1.0}},
     "distiller.weights.contxt: 'contextual' has no such term, .*did you mean 'context'"),
    ({"distiller.kind": "at", "distiller.temperature": 0.5}, "temperature=0.5: expected None: 'at' has no such option"),
    ({"data.train.made.weight": 0.0}, "data.train: all sources have the weight 0"),
    ({"loss.weights": {"class": 0.0, "box": 0.0, "quality": 0.0, "presence": 0.0}}, "loss.weights: all are 0"),
    ({"train.accumulate": 3}, "accumulate=3: expected a divisor of the batch's 32 pairs"),
    ({"train.virtual_shards": 5}, "virtual_shards=5: expected a divisor"),
    ({"train.virtual_shards": 8, "train.accumulate": 2}, "set one of them only"),
    ({"train.steps": 2**28}, "steps=268435456: expected at most 134217728 of 32 pairs"),
    ({"tracker": {"look": {"search_side": 191}}}, "search_side=191: expected 8 n . 7 and at least the 255 that"),
    ({"layout.fsdp": True}, "fsdp=True: expected False: only --config.layout.kind=mesh shards")])
def test_values_that_do_not_go_together_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    check(changed(changes))


@pytest.mark.parametrize("changes", [
    {"optimizer.warmup_steps": 10**6}, {"model.heads": 7, "model.use_sten": False}, {"data.pairs.shift": 50.0},
    {"distiller.weights": {"anything": 1.0}}, {"layout.fsdp": True, "layout.kind": "mesh"}, {"train.ema_decay": 0.0},
    {"seed": 2**32 - 1}, {"data.train": {}}, {"data.pairs.max_gap": 0}, {"tracker": {"belief": {"absent_below": 1.1}}},
    {"optimizer.learning_rate": 1, "data.train.made.weight": 3}])
def test_values_that_are_of_use_stay(changes):
  check(changed(changes))


# --- where it is asked


def test_a_training_does_not_start(tmp_path):
  for changes in ({"optimizer.learning_rate": -0.001}, {"train.steps": 0}, {"train.steps": -5}, {"train.log_every": 0}):
    (path, value), = changes.items()
    with pytest.raises(UserError, match=f"--config.{path}={value}: expected"):
      loop.train(changed(changes), str(tmp_path / "run"))
  with pytest.raises(UserError, match="this config is a sweep's or an ablation's"):
    loop.train(sweep_quickstart.get_config(), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entry, message", [
    (dict(parameter="train.batch_size", kind="integer", low=-1, high=8), "train.batch_size=-1: expected"),
    (dict(parameter="train.ema_decay", kind="uniform", low=0.5, high=1.5), "train.ema_decay=1.5: expected"),
    (dict(parameter="optimizer.kind", kind="choice", values=["sgd", "adam"]), "optimizer.kind=adam: expected"),
    (dict(parameter="model.heads", kind="choice", values=[1, 2]), "")])
def test_bounds_of_a_search_space_are_checked_before_any_trial(entry, message, tmp_path, monkeypatch):
  config = ml_collections.ConfigDict(dict(seed=0, space=[entry], experiment=changed({})))
  monkeypatch.setattr("siamdff_jax.sweeps.optuna_engine.run", lambda *_: "ran")
  if not message:
    assert sweep(config, str(tmp_path / "sweep"), 1) == "ran"
    return
  with pytest.raises(UserError, match=f"search space: {entry['parameter']}: --config.experiment.{message}"):
    sweep(config, str(tmp_path / "sweep"), 1)
  assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("changes, message", [
    (dict(seed=-1), "--config.seed=-1"), (dict(sead=1), "--config.sead: no such setting; did you mean 'seed'"),
    (dict(experiment=changed({"train.steps": 0})), "--config.experiment.train.steps=0")])
def test_sweeps_own_values_are_checked(changes, message, tmp_path):
  entry = dict(parameter="optimizer.learning_rate", kind="uniform", low=1e-4, high=1e-2)
  config = ml_collections.ConfigDict(dict(seed=0, space=[entry], experiment=changed({})) | changes)
  with pytest.raises(UserError, match=message):
    sweep(config, str(tmp_path), 1)


@pytest.mark.parametrize("changes, message", [
    (dict(trainings=0), "--config.trainings=0: expected a whole number of at least 1"),
    (dict(variants=[]), "config.variants: is empty"),
    (dict(variants=[dict(name="a", of="", changes=dict(model=dict(use_stem=True)))]),
     r"config.variants\[0\].changes.model.use_stem: no such setting; did you mean 'use_sten'"),
    (dict(variants=[dict(name="a", of="", changes=dict(train=dict(steps=0)))]), r"\[0\].changes.train.steps=0: exp"),
    (dict(variants=[dict(name="a", of="", changes=dict(model=dict(heads=7)))]), "'a': --config.experiment.model"),
    (dict(variants=[dict(name="base", of="", changes={}), dict(name="b", of="bse", changes={})]),
     r"variants\[1\]: of 'bse', expected '' or a variant before it; did you mean 'base'"),
    (dict(variants=[dict(name="a", of="", changes={}), dict(name="a", of="", changes={})]), "a name of its own"),
    (dict(variants=["a"]), "expected name, of and changes")])
def test_ablations_are_checked(changes, message, tmp_path):
  config = ml_collections.ConfigDict(dict(experiment=changed({}), variants=ablation.get_config().variants, trainings=1)
                                     | changes)
  with pytest.raises(UserError, match=message):
    ablate(config, str(tmp_path / "out"), [])
  assert not (tmp_path / "out").exists()


def test_shipped_and_older_checkpoints_can_be_read(tmp_path, caplog):
  """A checkpoint's tracker may have settings that this version does not know."""
  for name in shipped_models():
    load_tracker(name)
  assert not caplog.records
  made = small.config(**small.PLAIN)
  made.tracker = dict(growth=2.0, found_size_change=1.5, motion=dict(rate=0.5, inertia=0.1))
  small.write_checkpoint(tmp_path, made)
  with caplog.at_level(logging.WARNING):
    tracker, _ = load_tracker(str(tmp_path))
  assert tracker.settings == PLAIN.replace(growth=2.0, velocity_rate=0.5)
  assert "left out: found_size_change, motion.inertia" in caplog.text
  path = next((tmp_path / "checkpoints").glob("*/config/metadata"))
  stored = json.loads(path.read_text())
  stored["tracker"] = dict(tiles=-1)
  path.write_text(json.dumps(stored))
  with pytest.raises(UserError, match=f"{tmp_path}.*tracker.tiles=-1: expected a whole number"):
    load_tracker(str(tmp_path))
