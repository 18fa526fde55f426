"""One of several processes that train together, for tests/test_topology.py; not a test.

    topology_worker.py train COORDINATOR PROCESSES ID DEVICES OUT LAYOUT...   # LAYOUT: see config_of
    topology_worker.py stop COORDINATOR PROCESSES ID DEVICES OUT
"""

import json
import pathlib
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

import small
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.models.build import build
from siamdff_jax.parallel import distributed
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import make_step

STEPS, BATCH = 3, 8


KINDS = {"pmap": "pmap", "mesh": "mesh", "fsdp": "mesh", "shards": "pmap"}


def config_of(layout: str):
  """The smallest network that has something to shard, under plain SGD: a gradient of the wrong scale shows.

  Args:
    layout: "pmap", "mesh", "fsdp" (mesh with sharded parameters) or "shards" (pmap with four virtual shards).
  """
  config = small.config(features=48, **small.PLAIN)
  config.optimizer.update(kind="sgd", learning_rate=0.002, warmup_steps=0, clip_norm=1e9)
  config.train.virtual_shards = 4 if layout == "shards" else 0
  config.layout.update(kind=KINDS[layout], fsdp=layout == "fsdp")
  return config


def train(config, devices=None):
  """(layout, the state after STEPS steps, the metrics as floats); every process feeds its own share of the batches."""
  layout = parallel.make_layout(config.layout, BATCH, devices, config.train.virtual_shards)
  step = make_step(build(config.model, layout.norm_axis), optimizer(config.optimizer, config.train.steps), config,
                   axis_name=layout.axis_name)
  compiled, state, metrics = layout.compile(step), layout.put_state(small.start_state(config)), []
  share = BATCH // jax.process_count()
  mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
  for n in range(STEPS):
    batch = {name: x[mine] for name, x in small.batch(n, BATCH).items()}
    state, found = compiled(state, layout.put_sharded(batch), layout.put_replicated({}), None)
    metrics.append({name: float(value) for name, value in found.items()})
  return layout, state, metrics


def whole(state) -> list[np.ndarray]:
  """Its arrays, put together from all processes."""
  return [np.asarray(x if x.is_fully_replicated else multihost_utils.process_allgather(x, tiled=True))
          for x in jax.tree.leaves(state)]


def _train_and_save(out: pathlib.Path, layouts: list[str]):
  for layout in layouts:
    config = config_of(layout)
    _, state, metrics = train(config)
    assert all(x.is_fully_addressable == (jax.process_count() == 1) for x in jax.tree.leaves(state))
    with Checkpoints(str(out / layout)) as saved:
      saved.save(state, config)
    (out / f"{layout}_{jax.process_index()}.json").write_text(json.dumps(metrics))
    arrays = whole(state)
    if distributed.is_lead():
      np.savez(out / f"{layout}.npz", *arrays)


def _train_until_stopped(out: pathlib.Path):
  """Steps of 50 ms, the last process a little slower; writes the step after which it was asked to stop."""
  stop, own = distributed.StopSignal(), out / f"stopped_{jax.process_index()}"
  for step in range(1, 1200):
    time.sleep(0.05 + 0.01 * jax.process_index())
    own.with_suffix(".running").write_text(str(step))
    if stop.asked(step):
      own.write_text(str(step))
      break
  stop.restore()


if __name__ == "__main__":
  what, coordinator, processes, index, devices, folder, *rest = sys.argv[1:]
  jax.config.update("jax_num_cpu_devices", int(devices))
  distributed.start(coordinator, int(processes), int(index))
  if what == "train":
    _train_and_save(pathlib.Path(folder), rest)
  else:
    _train_until_stopped(pathlib.Path(folder))
