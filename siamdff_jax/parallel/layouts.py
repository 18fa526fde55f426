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

import abc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from input_pipeline.errors import UserError

AXIS = "data"
_SPLIT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()

Step = Callable[[Any, Any, Any], tuple[Any, Any]]  # (state, batch, teacher_variables) -> (state, metrics)
Prepare = Callable[[Any, Any, jax.Array], Any]  # (sharded, replicated, number of steps taken) -> batch
Compiled = Callable[..., tuple[Any, Any]]  # (state, sharded, replicated, teacher_variables=None) -> (state, metrics)


class Layout(abc.ABC):
  """How one step runs on several devices: where states and data lie, and how the step is compiled.

  Attributes:
    num_devices: of all processes.
    axis_name: what the step's collectives use; None where the step sees the global batch.
    norm_axis: what batch statistics are averaged over, for `models.build`: `axis_name`, or None with virtual shards.
  """

  def __init__(self, devices: Sequence[jax.Device], rounds: int, axis_name: str | None):
    """`devices` of all processes, ordered by process; each takes `rounds` virtual shards per step, 0: they are off."""
    self.num_devices, self.axis_name = len(devices), axis_name
    self.norm_axis = None if rounds else axis_name
    self._devices, self._rounds = devices, rounds
    self._local = [device for device in devices if device.process_index == jax.process_index()]
    self._mesh = Mesh(np.array(devices), (AXIS,))
    self._replicated = NamedSharding(self._mesh, _WHOLE)

  @abc.abstractmethod
  def compile(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Compiled:
    """The step over all devices, compiled when it is called first.

    Args:
      step: `step(state, batch, teacher_variables)`, see `training.step.make_step`.
      prepare: makes a device's part of the batch from its part of `sharded`, from `replicated`, and from the number of
        steps taken. It runs per device and may use collectives over `AXIS`. None: `sharded` is the batch.
      whole: the entries of `sharded` that are not one row per example (a data set split over the devices). With
        virtual shards `prepare` gets one shard's examples at a time, and all of these. What it makes of an example
        must then depend on the example alone, not on the device or the other examples.

    Returns:
      `compiled(state, sharded, replicated, teacher_variables)`, which gives what the step gives. What goes in was
      placed by `put_state`, by `put_sharded` or `put_parts`, by `put_replicated`, and by `put_state`. The state is
      donated, nothing else is.
    """

  def lower(self, step: Step, shapes: tuple[Any, Any, Any, Any], prepare: Prepare | None = None,
            whole: Sequence[str] = ()) -> jax.stages.Lowered:
    """What `compile` compiles, from shapes alone: the devices need not be there (`jax.experimental.topologies`).

    Args:
      step, prepare, whole: as for `compile`.
      shapes: (state, sharded, replicated, teacher_variables) of ShapeDtypeStructs, each as its `put_...` takes it;
        `sharded` is of all processes together.
    """
    state, sharded, replicated, teacher_variables = shapes
    return self.program(step, prepare, whole).lower(
        self._shapes_of_state(state), self._shapes_of_shares(sharded), replicated,
        self._shapes_of_state(teacher_variables))

  @abc.abstractmethod
  def program(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Any:
    """What `compile` calls: the jitted or pmapped function of (state, sharded, replicated, teacher_variables)."""

  def _shapes_of_state(self, tree: Any) -> Any:
    """For `lower`: what `put_state` would give."""
    return tree

  @abc.abstractmethod
  def _shapes_of_shares(self, tree: Any) -> Any:
    """For `lower`: what `put_sharded` would give."""

  def put_state(self, tree: Any) -> Any:
    """Places a state, or the teacher's variables: arrays, equal on all processes -> global arrays."""
    return self.put_replicated(tree)

  def put_replicated(self, tree: Any) -> Any:
    """Places what every device has whole: arrays, equal on all processes -> global arrays."""
    return jax.tree.map(lambda x: _place(x, self._replicated), tree)

  @abc.abstractmethod
  def put_sharded(self, tree: Any) -> Any:
    """Splits this process's share over its devices: numpy arrays [n, ...], whose n they divide -> arrays."""

  @abc.abstractmethod
  def put_parts(self, make: Callable[[int], np.ndarray]) -> jax.Array:
    """One array as `put_sharded` places it, part by part, so that the whole need not fit on a host.

    Args:
      make: makes the part of a device, all of one shape, given the device's number among all. It is asked for the
        devices of this process only.
    """

  def _parts(self, make: Callable[[int], np.ndarray]) -> list[jax.Array]:
    """The part of each device of this process, on that device."""
    return [jax.device_put(make(n), device) for n, device in enumerate(self._devices) if device in self._local]


def make_layout(config: ml_collections.ConfigDict, batch_size: int, devices: Iterable[jax.Device] | None = None,
                virtual_shards: int = 0) -> Layout:
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
  _require_equal_shares(len(devices), batch_size, virtual_shards, config.fsdp)
  rounds = virtual_shards // len(devices)
  if config.kind == "pmap":
    return PmapLayout(devices, rounds)
  if config.kind == "mesh":
    return MeshLayout(devices, rounds, config.fsdp)
  raise UserError(f"layout.kind is {config.kind!r}, expected 'pmap' or 'mesh'")


def _require_equal_shares(devices: int, batch_size: int, virtual_shards: int, fsdp: bool) -> None:
  if batch_size % devices:
    raise UserError(f"batch size {batch_size} cannot be shared equally by {devices} devices, set "
                    "--config.train.batch_size to a multiple")
  if virtual_shards % devices:
    raise UserError(f"{virtual_shards} virtual shards cannot be shared equally by {devices} devices, set "
                    "--config.train.virtual_shards to a multiple, or to 0")
  if virtual_shards and batch_size % virtual_shards:
    raise UserError(f"batch size {batch_size} cannot be cut into {virtual_shards} equal virtual shards, set "
                    "--config.train.batch_size to a multiple")
  if virtual_shards and fsdp:
    raise UserError("virtual shards need every device to have all parameters, set --config.layout.fsdp=False or "
                    "--config.train.virtual_shards=0")


class PmapLayout(Layout):
  """One program per device by `pmap`, with the state unstacked."""

  def __init__(self, devices: Sequence[jax.Device], rounds: int):
    super().__init__(devices, rounds, AXIS)
    self._over_local = NamedSharding(Mesh(np.array(self._local), (AXIS,)), _SPLIT)

  def compile(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Compiled:
    mapped = self.program(step, prepare, whole)

    def compiled(state: Any, sharded: Any, replicated: Any, teacher_variables: Any = None) -> tuple[Any, Any]:
      return jax.tree.map(self._as_global, mapped(state, sharded, replicated, teacher_variables))

    return compiled

  def program(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Any:
    return jax.pmap(_per_device(step, prepare, self._rounds, whole), axis_name=AXIS, in_axes=(None, 0, None, None),
                    out_axes=None, devices=self._devices, donate_argnums=0)

  def _shapes_of_shares(self, tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((self.num_devices, x.shape[0] // self.num_devices, *x.shape[1:]), x.dtype),
        tree)

  def _as_global(self, x: jax.Array) -> jax.Array:
    """With several processes pmap returns the copies on this host's devices only; Orbax wants all of them named."""
    if len(self._local) == self.num_devices:
      return x
    return jax.make_array_from_single_device_arrays(
        x.shape, self._replicated, [shard.data for shard in x.addressable_shards])

  def put_sharded(self, tree: Any) -> Any:
    """[n, ...] -> [devices of this process, n / devices, ...]."""
    return jax.tree.map(
        lambda x: jax.device_put(x.reshape(len(self._local), -1, *x.shape[1:]), self._over_local), tree)

  def put_parts(self, make: Callable[[int], np.ndarray]) -> jax.Array:
    """Parts [n, ...] -> [devices of this process, n, ...]."""
    parts = self._parts(lambda n: make(n)[None])
    return jax.make_array_from_single_device_arrays((len(parts), *parts[0].shape[1:]), self._over_local, parts)


class MeshLayout(Layout):
  """One program for all devices by `jit` over a named mesh; with `fsdp` the large arrays of a state are split too."""

  def __init__(self, devices: Sequence[jax.Device], rounds: int, fsdp: bool):
    super().__init__(devices, rounds, AXIS if rounds else None)
    self._over_data, self._fsdp = NamedSharding(self._mesh, _SPLIT), fsdp

  def compile(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Compiled:
    return self.program(step, prepare, whole)

  def program(self, step: Step, prepare: Prepare | None = None, whole: Sequence[str] = ()) -> Any:
    if self._rounds:
      program = _per_device(step, prepare, self._rounds, whole)
      mapped = self._shard_map(program, (_WHOLE, _SPLIT, _WHOLE, _WHOLE), _WHOLE)
    else:
      mapped = self._over_global_batch(
          step, self._shard_map(prepare, (_SPLIT, _WHOLE, _WHOLE), _SPLIT) if prepare else None)
    return jax.jit(mapped, donate_argnums=0)

  def _over_global_batch(self, step: Step, prepare: Prepare | None) -> Compiled:
    def mapped(state: Any, sharded: Any, replicated: Any, teacher_variables: Any = None) -> tuple[Any, Any]:
      batch = prepare(sharded, replicated, state.step) if prepare else sharded
      new, metrics = step(state, batch, teacher_variables)
      return lax.with_sharding_constraint(new, jax.tree.map(self._sharding, new)), metrics

    return mapped

  def _shard_map(self, function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: PartitionSpec
                 ) -> Callable[..., Any]:
    # check_vma=False: with the check, gradients inside shard_map come out summed over the devices.
    return jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

  def _sharding(self, x: Any) -> NamedSharding:
    """With fsdp large arrays are split along their largest axis that the devices divide; the rest is replicated."""
    if self._fsdp and x.size >= 2**14:
      for axis in sorted(range(x.ndim), key=lambda a: -x.shape[a]):
        if x.shape[axis] % self.num_devices == 0:
          return NamedSharding(self._mesh, PartitionSpec(*[None] * axis, AXIS))
    return self._replicated

  def _shapes_of_state(self, tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._sharding(x)), tree)

  def _shapes_of_shares(self, tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._over_data), tree)

  def put_state(self, tree: Any) -> Any:
    """With fsdp each device has its part of the large arrays."""
    return jax.tree.map(lambda x: _place(x, self._sharding(x)), tree)

  def put_sharded(self, tree: Any) -> Any:
    """[n, ...] -> global arrays [n * processes, ...]."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._over_data, x), tree)

  def put_parts(self, make: Callable[[int], np.ndarray]) -> jax.Array:
    """Parts [n, ...] -> a global array [n * devices, ...]."""
    parts = self._parts(make)
    shape = self.num_devices * len(parts[0]), *parts[0].shape[1:]
    return jax.make_array_from_single_device_arrays(shape, self._over_data, parts)


def _place(x: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
  """`x`, which every process has, as one array over all of their devices."""
  if sharding.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
    return jax.device_put(x, sharding)
  host = np.asarray(x)
  return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _per_device(step: Step, prepare: Prepare | None, rounds: int, whole: Sequence[str]) -> Compiled:
  """The program of one device that has `rounds` virtual shards (0: they are off)."""
  if prepare and rounds:
    prepare = _one_shard_after_the_other(prepare, rounds, whole)

  def run(state: Any, sharded: Any, replicated: Any, teacher_variables: Any = None) -> tuple[Any, Any]:
    return step(state, prepare(sharded, replicated, state.step) if prepare else sharded, teacher_variables)

  return run


def _one_shard_after_the_other(prepare: Prepare, rounds: int, whole: Sequence[str]) -> Prepare:
  """`prepare` on `rounds` equal parts of the examples.

  The barriers keep the compiler from fusing it with what is around it, which differs with the number of rounds.
  """

  def prepared(sharded: dict[str, jax.Array], replicated: Any, step_number: jax.Array) -> Any:
    kept = {name: sharded[name] for name in whole}
    examples = {name: x for name, x in sharded.items() if name not in whole}

    def one(part: dict[str, jax.Array]) -> Any:
      return lax.optimization_barrier(prepare(lax.optimization_barrier(part) | kept, replicated, step_number))

    parts = lax.map(one, jax.tree.map(lambda x: x.reshape(rounds, -1, *x.shape[1:]), examples))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)

  return prepared
