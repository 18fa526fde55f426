"""Ablations: the variants, their table against scores worked out anew, going on, mistakes."""

import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from conftest import ROOT

import small
from configs import ablation as shipped
from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax import results
from siamdff_jax.evaluation import protocols
from siamdff_jax.experiments import ablation
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.training.run_config import write_config

PARTS = ("use_sten", "use_intensity", "use_dsfam", "use_dcfam")


def variants_of(**experiment):
  config = shipped.get_config()
  config.experiment.update(experiment)
  return {variant.name: variant for variant in ablation._variants(config)}


def test_each_variant_adds_one_part_and_the_distillers_teach_the_whole_network():
  found = variants_of(teacher=dict(checkpoint="runs/teacher"), seed=3)
  on = {name: tuple(variant.config.model[part] for part in PARTS) for name, variant in found.items()}
  assert list(on) == ["baseline", "sten", "dsfam", "dcfam", "contextual", "fgd", "at", "cwd"]
  assert [sum(flags) for flags in on.values()] == [0, 2, 3, 4, 4, 4, 4, 4]
  assert [variant.of for variant in found.values()] == ["", "baseline", "sten", "dsfam", *["dcfam"] * 4]
  for name, variant in found.items():
    taught = name in ("contextual", "fgd", "at", "cwd")
    assert variant.config.distiller.kind == (name if taught else "none")
    assert variant.config.teacher.checkpoint == ("runs/teacher" if taught else "")
    # All else is alike: put back what differs, and the configs are equal.
    same = variant.config.copy_and_resolve_references()
    same.model.update(dict.fromkeys(PARTS, False))
    same.distiller.kind, same.teacher.checkpoint = "none", ""
    assert same == found["baseline"].config and same.seed == 3


def test_without_a_teacher_nothing_is_distilled(caplog):
  assert list(variants_of()) == ["baseline", "sten", "dsfam", "dcfam"]
  assert "contextual, fgd, at, cwd left out: they need a teacher" in caplog.text


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_dataset(folder, 3, 8, seed=0, width=96, height=80)
  return str(folder)


@pytest.fixture(scope="module")
def config(data, tmp_path_factory):
  """Two variants of two steps."""
  made = shipped.get_config()
  made.experiment = small.config(**dict.fromkeys(PARTS, False))
  made.experiment.data.train = dict(simulated=dict(format="antiuav410", root=data, weight=1.0))
  made.experiment.train.update(steps=2, batch_size=8, log_every=1, checkpoint_every=2)
  made.experiment.teacher.checkpoint = small.write_checkpoint(tmp_path_factory.mktemp("teacher"), made.experiment)
  made.trainings = 2
  made.variants = [made.variants[0], dict(name="dcfam", of="baseline", changes=dict(model=dict(use_dcfam=True)))]
  return made


def train(config, workdir):
  """Leaves what the training loop leaves, with random weights."""
  write_config(config, workdir)
  small.write_checkpoint(workdir, config)
  log = [{"step": step, "pairs_per_second": rate} for step, rate in ((1, 1.0), (2, 8.0), (3, 9.0))]
  (pathlib.Path(workdir) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
  return types.SimpleNamespace(step=np.int32(config.train.steps))


@pytest.fixture(scope="module")
def done(config, data, tmp_path_factory):
  """(workdir, table) of a finished ablation, two trainings of each variant."""
  workdir = tmp_path_factory.mktemp("ablation")
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(ablation, "train", train)
    patched.setattr(jax, "clear_caches", lambda: None)  # Of trainings, which there are none of here.
    return workdir, ablation.ablate(config, str(workdir), [f"made=antiuav410:{data}"])


def rows_of(text):
  return {cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.strip("|").split("|")]
                                            for line in text.splitlines() if line.startswith("|"))}


@pytest.mark.end_to_end
def test_the_table_holds_scores_differences_and_costs(done, data):
  workdir, text = done
  assert (workdir / ablation.TABLE_FILE).read_text() == text + "\n"
  gains, costs = (rows_of(part) for part in text.split("cost"))
  assert list(gains)[2:] == list(costs)[2:] == ["baseline", "dcfam"]
  sequences = datasets.load("antiuav410", data, frames=False)
  auc = {}
  for name in ("baseline", "dcfam"):
    runs = [results.read_folder(str(workdir / "evaluation" / "made" / name / f"seed_{seed}"), sequences)[0]
            for seed in (0, 1)]
    overall = [protocols.evaluate("antiuav410", sequences, run).metrics["overall"] for run in runs]
    auc[name] = [one["success_auc"] for one in overall]
    assert auc[name][0] != auc[name][1]
    shown = [float(cell.split()[0]) for cell in gains[name][:2]]
    assert shown == pytest.approx([np.mean(auc[name]), np.mean([one["precision_5"] for one in overall])], abs=6e-4)
    assert costs[name][3:] == ["2", "8.0"]
  assert gains["baseline"][2:] == ["-"] * 4 and gains["dcfam"][2] == "baseline"
  gain = np.mean(auc["dcfam"]) - np.mean(auc["baseline"])
  assert float(gains["dcfam"][3].split()[0]) == pytest.approx(gain, abs=6e-4)
  low, high = map(float, gains["dcfam"][5].split(" to "))
  assert (low + high) / 2 == pytest.approx(gain, abs=1e-3) and low < high
  half = 12.7062 * np.std(np.subtract(auc["dcfam"], auc["baseline"]), ddof=1) / np.sqrt(2)  # Of the two seeds' gains.
  assert high - low == pytest.approx(2 * half, abs=2e-3)
  assert "over runs, paired by seed, 2 and 2 runs: dcfam" in text.splitlines()
  assert float(costs["dcfam"][0]) > float(costs["baseline"][0]) > 0
  assert (workdir / "evaluation" / "made" / "report.html").is_file()


@pytest.mark.end_to_end
def test_the_same_command_goes_on_without_training_or_tracking_again(done, config, data, monkeypatch):
  workdir, text = done

  def trained(made, folder):
    return types.SimpleNamespace(step=np.int32(made.train.steps))

  def refuses(self, streams):
    assert not list(streams)
    return iter(())

  monkeypatch.setattr(ablation, "train", trained)
  monkeypatch.setattr(Runner, "run", refuses)
  assert ablation.ablate(config, str(workdir), [f"made=antiuav410:{data}"]) == text


@pytest.mark.end_to_end
def test_another_config_is_refused(done, config, data):
  workdir, _ = done
  other = config.copy_and_resolve_references()
  other.experiment.train.steps = 3
  with pytest.raises(UserError, match=r"baseline/seed_0/config.json: .* started with train.steps 2, now it is 3"):
    ablation.ablate(other, str(workdir), [f"made=antiuav410:{data}"])


def test_a_stopped_training_ends_the_command(config, data, tmp_path, monkeypatch):
  monkeypatch.setattr(ablation, "train", lambda made, folder: types.SimpleNamespace(step=np.int32(1)))
  text = ablation.ablate(config, str(tmp_path), [f"made=antiuav410:{data}"])
  assert text == "baseline/seed_0: stopped at step 1; the same command goes on from there"
  assert not (tmp_path / ablation.TABLE_FILE).exists()


@pytest.mark.parametrize("entries, message", [
    (["antiuav410:x"], "expected NAME=FORMAT:ROOT"), (["a=x"], "expected NAME=FORMAT:ROOT"),
    (["a=mine:x"], "with a format of antiuav"), (["a/b=antiuav:x"], "expected NAME=FORMAT:ROOT"),
    (["a=antiuav410:{}", "a=antiuav410:{}"], "two data sets are called a"), (["a=antiuav410:none"], "none"),
])
def test_data_that_cannot_be_used_is_refused_before_any_training(config, data, tmp_path, entries, message):
  with pytest.raises(UserError, match=message):
    ablation.ablate(config, str(tmp_path), [entry.format(data) for entry in entries])
  assert not list(tmp_path.iterdir())


SCRIPT_CONFIG = """
import small
from configs import ablation

def get_config():
  config = ablation.get_config()
  config.experiment = small.config(**dict.fromkeys(("use_sten", "use_intensity", "use_dsfam", "use_dcfam"), False))
  config.experiment.data.train = dict(simulated=dict(format="antiuav410", root="", weight=1.0))
  config.experiment.train.update(steps=2, batch_size=4, log_every=1, checkpoint_every=2)
  config.variants = [config.variants[0], dict(name="at", of="baseline", changes=dict(distiller=dict(kind="at")))]
  return config
"""


@pytest.mark.slow
def test_the_command_trains_and_distils(config, data, tmp_path):
  """Two trainings of two steps: `./scripts/test.sh -m slow tests/test_ablation.py`."""
  (tmp_path / "config.py").write_text(SCRIPT_CONFIG)
  command = [sys.executable, str(ROOT / "scripts" / "ablation.py"), f"--config={tmp_path / 'config.py'}",
             f"--workdir={tmp_path / 'out'}", f"--data=made=antiuav410:{data}",
             f"--config.experiment.data.train.simulated.root={data}",
             f"--config.experiment.teacher.checkpoint={config.experiment.teacher.checkpoint}"]
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  gains, costs = (rows_of(part) for part in done.stdout.split("cost"))
  assert list(gains)[2:] == list(costs)[2:] == ["baseline", "at"]
  assert costs["at"][:3] == costs["baseline"][:3]  # Distillation is free at inference.
  again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  assert again.stdout == done.stdout
