"""Tracking whole sequences while training: the score logged is that of scripts/evaluate.py, and it picks the best."""

import json

import evaluating
import jax
import numpy as np
import pytest
from trainer import Trainer

import small
from input_pipeline.errors import UserError
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.checkpoints import contents, trained
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training.evaluation import Evaluation
from siamdff_jax.training.logging import read_metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  write_dataset(folder, 3, 7, seed=5, width=96, height=80)
  return folder


def config(data, **evaluation):
  made = small.config(**small.PLAIN)
  made.evaluation.update(root=str(data), streams=2, **evaluation)
  return made


@pytest.mark.end_to_end
def test_training_logs_the_score_and_keeps_the_best_by_it(data, tmp_path):
  trainer = Trainer(tmp_path)
  workdir = tmp_path / "run"
  code, errors = trainer.finish(
      workdir, "--config.train.steps=6", "--config.train.checkpoint_every=3", f"--config.evaluation.root={data}",
      "--config.evaluation.metric=precision_20", "--config.model.norm=group")
  assert code == 0, errors
  scores = {line["step"]: line["evaluation/score"] for line in read_metrics(workdir) if "evaluation/score" in line}
  assert sorted(scores) == [3, 6]
  best = max(scores, key=lambda step: (scores[step], step))
  assert trained.find(str(workdir)).endswith(f"{contents.FOLDER}/{best}")
  evaluating.run([f"best={workdir}"], [], "antiuav410", str(data), str(tmp_path / "out"))
  overall = json.loads((tmp_path / "out" / "best" / "metrics.json").read_text())["overall"]
  assert overall["precision_20"] == pytest.approx(scores[best], abs=1e-9)


@pytest.mark.parametrize("layout", [{"kind": "pmap", "fsdp": False}, {"kind": "mesh", "fsdp": True}])
def test_the_score_does_not_depend_on_how_the_state_is_laid_out(data, layout):
  made = config(data)
  made.layout.update(layout)
  state = small.start_state(made)
  found = Evaluation(made)
  placed = parallel.make_layout(made.layout, 8).put_state(state)
  assert found(placed) == found(jax.device_put(state))
  moved = jax.tree.map(lambda x: np.asarray(x) * 1.5, state.ema)
  assert found(jax.device_put(state.replace(ema=moved))) != found(placed)  # The weights given are those used.


def test_problems_are_known_before_the_training(data):
  with pytest.raises(UserError, match="config.evaluation.metric is 'iou', expected one of sa"):
    Evaluation(config(data, metric="iou"))
  with pytest.raises(UserError, match="no protocol 'none'"):
    Evaluation(config(data, protocol="none"))
  with pytest.raises(UserError, match="no sequence has 'bird' in its name"):
    Evaluation(config(data, only="bird"))
  privileged = config(data)
  privileged.model.prior_channel = True
  with pytest.raises(UserError, match="prior_channel"):
    Evaluation(privileged)
