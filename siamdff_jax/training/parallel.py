"""How the one step is laid over devices. Two layouts with equal results:

* "pmap": as the user asked for; the state stays unstacked (in_axes None), so that checkpoints, the moving average
  and export do not care which layout ran.
* "mesh": `jit` over a named mesh; the batch is sharded, the state replicated or, with `fsdp`, its large arrays are
  sharded too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.errors import DataError

AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Layout:
  """What the loop needs to know of a layout.

  Attributes:
    axis_name: what the step's collectives use; None where the step sees the global batch.
    compile: step -> compiled step with the same arguments; the state is donated.
    put_state: places a state (or the teacher's variables).
    put_batch: this host's share of a batch as numpy -> what the compiled step takes.
  """

  axis_name: str | None
  compile: Callable[[Callable], Callable]
  put_state: Callable[[Any], Any]
  put_batch: Callable[[Any], Any]


def make_layout(config: ml_collections.ConfigDict, batch_size: int, devices=None) -> Layout:
  """The layout named by `config.layout.kind` over `devices` (default: all).

  Raises:
    DataError: an unknown kind, or a batch that the devices cannot share equally.
  """
  devices = list(jax.devices() if devices is None else devices)
  if batch_size % len(devices):
    raise DataError(f"batch size {batch_size} cannot be shared equally by {len(devices)} devices, set "
                    "--config.train.batch_size to a multiple")
  if config.kind == "pmap":
    return _pmap(devices)
  if config.kind == "mesh":
    return _mesh(devices, config.fsdp)
  raise DataError(f"layout.kind is {config.kind!r}, expected 'pmap' or 'mesh'")


def _pmap(devices) -> Layout:
  local = [d for d in devices if d.process_index == jax.process_index()]
  replicated = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())

  def compile_step(step):
    return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0, None), out_axes=None, devices=devices, donate_argnums=0)

  def put_batch(batch):
    return jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)

  return Layout(AXIS, compile_step, lambda tree: jax.device_put(tree, replicated), put_batch)


def _mesh(devices, fsdp: bool) -> Layout:
  mesh = jax.make_mesh((len(devices),), (AXIS,), (jax.sharding.AxisType.Auto,), devices=devices)
  over_data = NamedSharding(mesh, PartitionSpec(AXIS))

  def sharding(x) -> NamedSharding:
    """Large arrays are split along their largest axis that the devices divide; the rest is replicated."""
    if fsdp and x.size >= 2**14:
      for axis in sorted(range(x.ndim), key=lambda a: -x.shape[a]):
        if x.shape[axis] % len(devices) == 0:
          return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
    return NamedSharding(mesh, PartitionSpec())

  def put_state(tree):
    return jax.tree.map(lambda x: jax.device_put(x, sharding(x)), tree)

  def put_batch(batch):
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(over_data, x), batch)

  def compile_step(step):
    def constrained(state, batch, teacher_variables=None):
      new, metrics = step(state, batch, teacher_variables)
      return jax.lax.with_sharding_constraint(new, jax.tree.map(sharding, new)), metrics

    return jax.jit(constrained, donate_argnums=0)

  return Layout(None, compile_step, put_state, put_batch)
