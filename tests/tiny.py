"""A network small enough to compile in seconds, and a checkpoint of it."""

import jax

from configs import base
from siamdff_jax.models.build import build
from siamdff_jax.training import checkpoints
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state


def config():
  made = base.get_config()
  made.model.update(template_side=63, search_side=127, heads=2, tower_depth=1, features=16, norm="group")
  made.model.backbone.update(blocks=(1, 1, 1, 1), widths=(8, 8, 8, 8), stem_kernel=3)
  made.train.update(steps=2, batch_size=4)
  return made


def write_checkpoint(workdir, made=None) -> str:
  """An untrained network's checkpoint in `workdir`."""
  made = made or config()
  state = initial_state(build(made.model), None, optimizer(made.optimizer, made.train.steps), made.seed)
  with checkpoints.Checkpoints(str(workdir)) as saved:
    saved.save(jax.device_put(state), made)
  return str(workdir)
