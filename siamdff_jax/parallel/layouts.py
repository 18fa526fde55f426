"""How the one step is laid over devices, of one process or of many. Two layouts with equal results:

* "pmap": as the user asked for; the state stays unstacked (in_axes None), so that checkpoints, the moving average
  and export do not care which layout ran.
* "mesh": `jit` over a named mesh; the batch is sharded, the state replicated or, with `fsdp`, its large arrays are
  sharded too.

Devices are ordered by process, so the global batch is the hosts' shares one after the other in both. In both a state
is made of global arrays, which every process saves and restores in the same way.

With virtual shards (see `gradients.by_virtual_shard`) both run the step per device, and data are prepared one virtual
shard after the other, in the same shapes on any number of devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.errors import UserError

AXIS = "data"
_SPLIT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()


@dataclasses.dataclass(frozen=True)
class Layout:
  """What the loop needs to know of a layout.

  Attributes:
    devices: how many there are.
    axis_name: what the step's collectives use; None where the step sees the global batch.
    norm_axis: what batch statistics are averaged over, for `models.build`: `axis_name`, or None with virtual shards.
    compile: `compile(step, prepare=None, whole=())` -> `compiled(state, sharded, replicated, teacher_variables)`,
      which gives what `step(state, batch, teacher_variables)` gives. The state is donated, nothing else is.
      `prepare(sharded, replicated, step_number)` makes a device's part of the batch from its part of `sharded`, from
      `replicated`, and from the number of steps taken. It runs per device and may use collectives over `AXIS`; without
      it `sharded` is the batch. `whole` names the entries of `sharded` that are not one row per example (a data set
      split over the devices): with virtual shards `prepare` gets one shard's examples at a time, and all of these.
      What it makes of an example must then depend on the example alone, not on the device or the other examples.
    put_state: places a state, or the teacher's variables; on several processes from values equal on all of them.
    put_sharded: this host's share as numpy, split along axis 0 over its devices, which must divide it.
    put_replicated: numpy arrays, equal on all processes, that every device gets whole.
    put_parts: like `put_sharded`, from a function that makes the part of one device, given the device's number among
      all; it is asked for this host's devices only, so the whole need not fit on a host.
  """

  devices: int
  axis_name: str | None
  norm_axis: str | None
  compile: Callable[..., Callable]
  put_state: Callable[[Any], Any]
  put_sharded: Callable[[Any], Any]
  put_replicated: Callable[[Any], Any]
  put_parts: Callable[[Callable[[int], np.ndarray]], jax.Array]


def make_layout(config: ml_collections.ConfigDict, batch_size: int, devices=None, virtual_shards: int = 0) -> Layout:
  """The layout named by `config.layout.kind` over `devices`.

  Args:
    config: `config.layout`.
    batch_size: pairs per step, of all processes together.
    devices: default: all devices of all processes.
    virtual_shards: `config.train.virtual_shards`; 0 is off.

  Raises:
    UserError: an unknown kind, a batch that the devices (or virtual shards) cannot share equally, or virtual shards
      with fsdp.
  """
  devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
  _require_equal_shares(devices, batch_size, virtual_shards, config.fsdp)
  rounds = virtual_shards // len(devices)
  if config.kind == "pmap":
    return _pmap(devices, rounds)
  if config.kind == "mesh":
    return _mesh(devices, config.fsdp, rounds)
  raise UserError(f"layout.kind is {config.kind!r}, expected 'pmap' or 'mesh'")


def _require_equal_shares(devices, batch_size: int, virtual_shards: int, fsdp: bool):
  if batch_size % len(devices):
    raise UserError(f"batch size {batch_size} cannot be shared equally by {len(devices)} devices, set "
                    "--config.train.batch_size to a multiple")
  if virtual_shards % len(devices):
    raise UserError(f"{virtual_shards} virtual shards cannot be shared equally by {len(devices)} devices, set "
                    "--config.train.virtual_shards to a multiple, or to 0")
  if virtual_shards and batch_size % virtual_shards:
    raise UserError(f"batch size {batch_size} cannot be cut into {virtual_shards} equal virtual shards, set "
                    "--config.train.batch_size to a multiple")
  if virtual_shards and fsdp:
    raise UserError("virtual shards need every device to have all parameters, set --config.layout.fsdp=False or "
                    "--config.train.virtual_shards=0")


def _pmap(devices, rounds: int) -> Layout:
  local = [d for d in devices if d.process_index == jax.process_index()]
  over_local = NamedSharding(Mesh(np.array(local), (AXIS,)), _SPLIT)
  replicated = NamedSharding(Mesh(np.array(devices), (AXIS,)), _WHOLE)
  put_whole = lambda tree: jax.tree.map(lambda x: _place(x, replicated), tree)

  def compile_step(step, prepare=None, whole=()):
    mapped = jax.pmap(_per_device(step, prepare, rounds, whole), axis_name=AXIS, in_axes=(None, 0, None, None),
                      out_axes=None, devices=devices, donate_argnums=0)

    def compiled(state, sharded, replicated_tree, teacher_variables=None):
      return jax.tree.map(as_global, mapped(state, sharded, replicated_tree, teacher_variables))

    return compiled

  def as_global(x):
    """With several processes pmap returns the copies on this host's devices only; Orbax wants all of them named."""
    if len(local) == len(devices):
      return x
    return jax.make_array_from_single_device_arrays(x.shape, replicated, [s.data for s in x.addressable_shards])

  def put_sharded(tree):
    return jax.tree.map(lambda x: jax.device_put(x.reshape(len(local), -1, *x.shape[1:]), over_local), tree)

  def put_parts(make):
    parts = [jax.device_put(make(n)[None], d) for n, d in enumerate(devices) if d in local]
    return jax.make_array_from_single_device_arrays((len(local), *parts[0].shape[1:]), over_local, parts)

  norm_axis = None if rounds else AXIS
  return Layout(len(devices), AXIS, norm_axis, compile_step, put_whole, put_sharded, put_whole, put_parts)


def _mesh(devices, fsdp: bool, rounds: int) -> Layout:
  mesh = Mesh(np.array(devices), (AXIS,))
  over_data, replicated = NamedSharding(mesh, _SPLIT), NamedSharding(mesh, _WHOLE)

  def sharding(x) -> NamedSharding:
    """Large arrays are split along their largest axis that the devices divide; the rest is replicated."""
    if fsdp and x.size >= 2**14:
      for axis in sorted(range(x.ndim), key=lambda a: -x.shape[a]):
        if x.shape[axis] % len(devices) == 0:
          return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))
    return replicated

  # check_vma=False: with the check, gradients inside shard_map come out summed over the devices.
  def per_device(function, in_specs, out_specs):
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

  def compile_step(step, prepare=None, whole=()):
    if rounds:
      mapped = per_device(_per_device(step, prepare, rounds, whole), (_WHOLE, _SPLIT, _WHOLE, _WHOLE), _WHOLE)
    else:
      mapped = over_global_batch(step, prepare and per_device(prepare, (_SPLIT, _WHOLE, _WHOLE), _SPLIT))
    return jax.jit(mapped, donate_argnums=0)

  def over_global_batch(step, prepare):
    def mapped(state, sharded, replicated_tree, teacher_variables=None):
      batch = prepare(sharded, replicated_tree, state.step) if prepare else sharded
      new, metrics = step(state, batch, teacher_variables)
      return lax.with_sharding_constraint(new, jax.tree.map(sharding, new)), metrics

    return mapped

  def put_sharded(tree):
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(over_data, x), tree)

  def put_parts(make):
    parts = [jax.device_put(make(n), d) for n, d in enumerate(devices) if d.process_index == jax.process_index()]
    shape = len(devices) * len(parts[0]), *parts[0].shape[1:]
    return jax.make_array_from_single_device_arrays(shape, over_data, parts)

  put_state = lambda tree: jax.tree.map(lambda x: _place(x, sharding(x)), tree)
  put_whole = lambda tree: jax.tree.map(lambda x: _place(x, replicated), tree)
  axis_name = AXIS if rounds else None
  return Layout(len(devices), axis_name, None, compile_step, put_state, put_sharded, put_whole, put_parts)


def _place(x, sharding: NamedSharding) -> jax.Array:
  """`x`, which every process has, as one array over all of their devices."""
  if sharding.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
    return jax.device_put(x, sharding)
  host = np.asarray(x)
  return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _per_device(step: Callable, prepare: Callable | None, rounds: int, whole: tuple[str, ...]) -> Callable:
  """The program of one device that has `rounds` virtual shards (0: they are off)."""
  if prepare and rounds:
    prepare = _one_shard_after_the_other(prepare, rounds, whole)

  def run(state, sharded, replicated, teacher_variables=None):
    return step(state, prepare(sharded, replicated, state.step) if prepare else sharded, teacher_variables)

  return run


def _one_shard_after_the_other(prepare: Callable, rounds: int, whole: tuple[str, ...]) -> Callable:
  """`prepare` on `rounds` equal parts of the examples.

  The barriers keep the compiler from fusing it with what is around it, which differs with the number of rounds.
  """

  def prepared(sharded, replicated, step_number):
    kept = {name: sharded[name] for name in whole}
    examples = {name: x for name, x in sharded.items() if name not in whole}

    def one(part):
      return lax.optimization_barrier(prepare(lax.optimization_barrier(part) | kept, replicated, step_number))

    parts = lax.map(one, jax.tree.map(lambda x: x.reshape(rounds, -1, *x.shape[1:]), examples))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)

  return prepared
