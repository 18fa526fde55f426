r"""A sweep over the quickstart's networks: what to vary, and the experiment it is varied in.

  scripts/sweep.py --config configs/sweep_quickstart.py --workdir runs/sweep --trials 20 \
      --config.experiment.data.train.simulated.root=runs/quickstart/train \
      --config.experiment.data.validation.simulated.root=runs/quickstart/test
"""

import ml_collections

from configs import quickstart


def get_config(role: str = "teacher") -> ml_collections.ConfigDict:
  """`role`: "teacher", or "student" (which needs --config.experiment.teacher.checkpoint)."""
  experiment = quickstart.get_config(role)
  experiment.data.validation = dict(simulated=dict(format="antiuav410", root="", weight=1.0))
  # A value is named by its place in the experiment. Kinds: log_uniform, uniform, integer (low, high); choice (values).
  space = [
      dict(parameter="optimizer.learning_rate", kind="log_uniform", low=1e-4, high=1e-2),
      dict(parameter="optimizer.weight_decay", kind="log_uniform", low=1e-6, high=1e-2),
  ]
  if role == "student":
    space += [
        dict(parameter="distiller.weight", kind="log_uniform", low=0.1, high=10.0),
        dict(parameter="model.tower_depth", kind="integer", low=1, high=3),
        dict(parameter="loss.quality_kind", kind="choice", values=["centerness", "iou"]),
    ]
  return ml_collections.ConfigDict(dict(seed=0, space=space, experiment=experiment))
