"""A run that is killed, or asked to stop, and started again ends with the same bits as one that never stopped."""

import signal

import numpy as np
import pytest
from trainer import EVERY, STEPS, Trainer, assert_same_bits, checkpoint_steps, last_logged, losses

from siamdff_jax.checkpoints import contents, trained
from siamdff_jax.training.logging import read_metrics

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
  return Trainer(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def uninterrupted(trainer, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  code, errors = trainer.finish(workdir, "--config.train.profile_steps=2")
  assert code == 0, errors
  return workdir


def test_a_whole_run_logs_and_keeps_what_it_says(uninterrupted):
  """Every step once; of the checkpoints the last two, and the best by the validation's IoU."""
  lines = read_metrics(uninterrupted)
  assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
  quality = {line["step"]: line["validation/iou"] for line in lines if "validation/iou" in line}
  assert sorted(quality) == list(range(EVERY, STEPS + 1, EVERY))
  best = max(quality, key=lambda step: (quality[step], step))
  assert checkpoint_steps(uninterrupted) == sorted({best, STEPS - EVERY, STEPS})
  assert trained.find(str(uninterrupted)) == str(uninterrupted / contents.FOLDER / str(best))
  assert trained.load_config(str(uninterrupted)).train.steps == STEPS
  for line in lines:
    if "loss" in line:
      assert line["pairs_per_second"] > 0 and 0 <= line["input_wait"] <= 1 and line["host_memory_gib"] > 0.1
  assert len(list((uninterrupted / "profile").rglob("*.xplane.pb"))) == 1


def test_killed_and_stopped_runs_end_with_the_same_bits(trainer, uninterrupted, tmp_path):
  """SIGKILL at a random step between checkpoints, started again, SIGTERM, started again."""
  rng = np.random.default_rng(0)
  killed_at = int(rng.choice([n for n in range(EVERY + 1, 2 * EVERY + 5) if n % EVERY]))
  code, errors = trainer.interrupt(tmp_path, signal.SIGKILL, lambda _: last_logged(tmp_path) >= killed_at)
  assert code == -signal.SIGKILL, errors
  saved = checkpoint_steps(tmp_path)
  assert STEPS not in saved

  stop_at = int(rng.integers(2 * EVERY + 5, 3 * EVERY))
  code, errors = trainer.interrupt(tmp_path, signal.SIGTERM, lambda _: last_logged(tmp_path) >= stop_at)
  assert code == 0, errors
  assert "Traceback" not in errors
  if saved:
    assert f"resuming at step {saved[-1]} of {STEPS}" in errors
  stopped_at = checkpoint_steps(tmp_path)[-1]
  assert f"stopped by signal at step {stopped_at}, saved" in errors
  assert killed_at - EVERY <= stopped_at < STEPS and stopped_at == last_logged(tmp_path)

  code, errors = trainer.finish(tmp_path)
  assert code == 0, errors
  assert f"resuming at step {stopped_at} of {STEPS}" in errors
  assert_same_bits(tmp_path, uninterrupted)
  # The best of all checkpoints is still known, also those from before the interruptions.
  assert checkpoint_steps(tmp_path)[-1] == STEPS and len(checkpoint_steps(tmp_path)) <= 3
  assert losses(tmp_path) == losses(uninterrupted)  # No step twice, none missing, and the same numbers.


def test_ctrl_c_saves_and_a_second_training_in_the_folder_is_refused(trainer, uninterrupted, tmp_path):
  """Exit code 130, so that a script does not go on to its next command; and not a step is lost."""
  refused = []

  def ready(_):
    if last_logged(tmp_path) >= EVERY + 2 and not refused:
      refused.append(trainer.finish(tmp_path, "--config.seed=1"))
    return bool(refused)

  code, errors = trainer.interrupt(tmp_path, signal.SIGINT, ready, "--config.train.steps=4000")
  assert code == 130 and "Traceback" not in errors, errors
  assert refused[0][0] == 1 and "a training is writing there already (process" in refused[0][1]
  stopped_at = checkpoint_steps(tmp_path)[-1]
  assert f"stopped by signal at step {stopped_at}, saved" in errors and stopped_at == last_logged(tmp_path)


def test_a_config_that_does_not_fit_is_one_sentence(trainer, uninterrupted):
  before = checkpoint_steps(uninterrupted)
  code, errors = trainer.finish(uninterrupted, "--config.model.features=24", "--config.seed=3")
  assert code == 1 and "Traceback" not in errors
  assert "--config.model.features 16 -> 24; --config.seed 0 -> 3; choose another --workdir" in errors
  code, errors = trainer.finish(uninterrupted, "--config.model.features=24", "--allow_changes")
  assert code == 1 and "Traceback" not in errors
  sentences = [line for line in errors.splitlines() if line.startswith("error: ")]
  assert len(sentences) == 1
  folder = uninterrupted / contents.FOLDER / str(STEPS)
  assert str(folder) in sentences[0] and "does not fit the config" in sentences[0]
  assert "(16,) in the checkpoint and (24,) in the config" in sentences[0] and "more" in sentences[0]
  assert checkpoint_steps(uninterrupted) == before
