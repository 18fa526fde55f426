"""The search space of a sweep: how it is read, what is wrong with it, and what is drawn from it."""

import numpy as np
import pytest

import small
from input_pipeline.errors import UserError
from siamdff_jax.sweeps import space

LEARNING_RATE = dict(parameter="optimizer.learning_rate", kind="log_uniform", low=1e-4, high=1e-1)


def test_space_is_read():
  parsed = space.parse([LEARNING_RATE, dict(parameter="model.heads", kind="integer", low=1, high=2),
                        dict(parameter="model.backbone.blocks", kind="choice", values=[[1, 1, 1, 1], [1, 2, 2, 1]])],
                       small.config())
  assert parsed[0] == space.Parameter("optimizer.learning_rate", "log_uniform", 1e-4, 1e-1)
  assert parsed[2].values == ((1, 1, 1, 1), (1, 2, 2, 1))


@pytest.mark.parametrize("entry, message", [
    (dict(LEARNING_RATE, parameter="optimizer.lr"), "'lr' is unknown"),
    (dict(LEARNING_RATE, parameter="optimizer"), "is a group"),
    (dict(LEARNING_RATE, parameter="optimizer.learning_rate.peak"), "'peak' is unknown"),
    (dict(kind="uniform", low=0, high=1), "no `parameter`"),
    (dict(LEARNING_RATE, kind="normal"), "kind is 'normal'"),
    (dict(LEARNING_RATE, low=0), "more than 0"),
    (dict(LEARNING_RATE, low=0.2), "not below"),
    (dict(LEARNING_RATE, high="0.1"), "`high` is '0.1'"),
    (dict(LEARNING_RATE, high=float("nan")), "`high` is nan"),
    (dict(LEARNING_RATE, step=2), "takes exactly high and low"),
    (dict(parameter="model.heads", kind="uniform", low=1, high=2), "gives a float"),
    (dict(parameter="optimizer.learning_rate", kind="integer", low=1, high=2), "gives a int"),
    (dict(parameter="model.heads", kind="integer", low=1.5, high=2), "`low` is 1.5"),
    (dict(parameter="optimizer.kind", kind="choice", values=[]), "empty"),
    (dict(parameter="optimizer.kind", kind="choice", values=["sgd", 3]), "3 does not fit"),
])
def test_space_mistakes_are_named(entry, message):
  with pytest.raises(UserError, match=message):
    space.parse([entry], small.config())


def test_space_twice_or_empty():
  with pytest.raises(UserError, match="twice"):
    space.parse([LEARNING_RATE, LEARNING_RATE], small.config())
  with pytest.raises(UserError, match="empty"):
    space.parse([], small.config())


def test_apply_leaves_the_experiment_alone():
  experiment = small.config()
  changed = space.apply(experiment, {"optimizer.learning_rate": 1, "distiller.temperature": 0.5, "model.heads": 1})
  assert changed.optimizer.learning_rate == 1.0 and isinstance(changed.optimizer.learning_rate, float)
  assert changed.distiller.temperature == 0.5 and changed.model.heads == 1
  assert experiment.optimizer.learning_rate == 0.05 and experiment.distiller.temperature is None


def test_samples_are_in_bounds_and_log_uniform():
  parsed = space.parse([LEARNING_RATE, dict(parameter="model.heads", kind="integer", low=1, high=3)], small.config())
  draws = [space.sample(parsed, 0, n) for n in range(600)]
  rates = np.array([d["optimizer.learning_rate"] for d in draws])
  assert rates.min() >= 1e-4 and rates.max() <= 1e-1
  # A third of the draws per decade: 200 +- 4 standard deviations of a binomial.
  counts = np.histogram(rates, [1e-4, 1e-3, 1e-2, 1e-1])[0]
  assert np.all(np.abs(counts - 200) < 4 * np.sqrt(600 / 3 * 2 / 3))
  assert {d["model.heads"] for d in draws} == {1, 2, 3}
  assert draws[7] == space.sample(parsed, 0, 7) != space.sample(parsed, 1, 7)


def test_grid():
  rates = dict(parameter="optimizer.learning_rate", kind="choice", values=[0.1, 0.2])
  decays = dict(parameter="optimizer.weight_decay", kind="choice", values=[0.0, 1.0, 2.0])
  parsed = space.parse([rates, decays], small.config())
  combinations = [tuple(values.values()) for values in space.grid(parsed)]
  assert combinations == [(0.1, 0.0), (0.1, 1.0), (0.1, 2.0), (0.2, 0.0), (0.2, 1.0), (0.2, 2.0)]
