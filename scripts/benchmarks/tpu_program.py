"""The training step's program for TPUs that are not there, from shapes alone: no weights are made.

libtpu compiles for a described topology (`jax.experimental.topologies`) without any TPU.
"""

import importlib.util
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.cases import Case, random_batch
from benchmarks.step import networks
from input_pipeline.errors import UserError
from siamdff_jax.feeding.augment import augment
from siamdff_jax.feeding.feeds import HostFeed
from siamdff_jax.models.devices import traced_for
from siamdff_jax.models.load import abstract_variables
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.sweeps import population
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state, make_step

LAYOUTS = {"pmap": {"kind": "pmap", "fsdp": False}, "mesh": {"kind": "mesh", "fsdp": False},
           "fsdp": {"kind": "mesh", "fsdp": True}, "population": {}}
# So libtpu asks no metadata server what machine this is, and lets other processes have it too: no chip is touched.
_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
                "TPU_ACCELERATOR_TYPE": "v5litepod-16", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
                "TPU_LOG_DIR": "disabled"}


class Chip(NamedTuple):
  """A JAX device: bytes of memory that programs may use (from libtpu's "out of memory"), and its clock in Hz.

  The clock follows from the published peak: 197e12 FLOP/s in 4 matrix units of 128 x 128 multiply-adds (v5e), 459e12
  in 8 of them (v5p).
  """

  memory: float
  clock: float


CHIPS = {"TPU v5 lite": Chip(15.75 * 2**30, 1.5e9), "TPU v5": Chip(95.74 * 2**30, 1.75e9)}


def prepare() -> None:
  """To be called before anything asks JAX for devices.

  Raises:
    UserError: libtpu is not installed.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise UserError("the TPU compiler is not installed: pip install -r requirements-tpu.txt")
  os.environ.update(_ENVIRONMENT)
  jax.config.update("jax_platforms", "cpu")  # JAX is imported already.
  jax.config.update("jax_enable_compilation_cache", False)  # Seconds to compile are what is asked for.
  jax.config.update("jax_traceback_in_locations_limit", 50)  # As deep as from optax or flax to our own code.


def devices(topology: str) -> list[jax.Device]:
  """Of a topology such as "v5e:4x4", ordered by host.

  Raises:
    UserError: libtpu does not know it, or we do not know its chips.
  """
  try:
    found = topologies.get_topology_desc(topology, "tpu").devices
  except jax.errors.JaxRuntimeError as error:
    if "INVALID_ARGUMENT: " not in str(error):
      raise
    why = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
    raise UserError(f"--topology={topology}: expected one such as v5e:2x2, v5e:16x16 or v5p:4x4x8 ({why})") from error
  if found[0].device_kind not in CHIPS:
    raise UserError(f"--topology={topology}: only the memory and clock of v5e and v5p are known here")
  return sorted(found, key=lambda device: (device.process_index, device.id))


def lowered(case: Case, layout: str, places: list[jax.Device], pairs: int) -> jax.stages.Lowered:
  """The training step for `places`, from shapes alone.

  Args:
    case: a case; its batch size and layout are replaced.
    layout: of `LAYOUTS`. A population lives on the devices of one host: the first's.
    places: devices of a topology.
    pairs: per device.
  """
  with traced_for("tpu"):
    return (_population if layout == "population" else _training)(case, layout, places, pairs)


def _training(case: Case, layout: str, places: list[jax.Device], pairs: int) -> jax.stages.Lowered:
  config = case.with_batch(pairs * len(places), **LAYOUTS[layout]).config
  laid = parallel.make_layout(config.layout, config.train.batch_size, places, config.train.virtual_shards)
  model, distiller, teacher = _networks(case, laid.norm_axis)
  rule = optimizer(config.optimizer, config.train.steps)
  step = make_step(model, rule, config, axis_name=laid.axis_name, distiller=distiller, teacher=teacher)
  state, variables = _state(case)
  feed = HostFeed(config, laid, iter(()))
  return laid.lower(step, (state, _batch(config), feed.replicated, variables), feed.prepare, feed.whole)


def _population(case: Case, layout: str, places: list[jax.Device], pairs: int) -> jax.stages.Lowered:
  config, places = case.with_batch(pairs).config, host_devices(places)
  model, distiller, teacher = _networks(case)
  mesh = Mesh(np.array(places), (population.AXIS,))
  over, same = (NamedSharding(mesh, spec) for spec in (PartitionSpec(population.AXIS), PartitionSpec()))
  state, variables = _state(case)

  def shapes(tree: Any, sharding: NamedSharding, *lead: int) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*lead, *x.shape), x.dtype, sharding=sharding), tree)

  batch = jax.eval_shape(lambda batch: augment(batch, config.seed, config.data.augment), _batch(config))
  rates = jax.ShapeDtypeStruct((config.train.steps,), jnp.float32)
  program = population.jitted_step(model, config, mesh, distiller, teacher)
  return program.lower(shapes(state, over, len(places)), shapes(rates, over, len(places)), shapes(batch, same),
                       shapes(variables, same))


def _networks(case: Case, axis_name: str | None = None) -> tuple[SiamDFF, Any, Any]:
  """As `step.networks`; the teacher's operations have its name."""
  model, distiller, teacher = networks(case, axis_name)
  return model, distiller, teacher and teacher.clone(name="teacher")


def host_devices(places: list[jax.Device]) -> list[jax.Device]:
  """Those of the first host."""
  return [place for place in places if place.process_index == places[0].process_index]


def _state(case: Case) -> tuple[Any, Any]:
  """Shapes of (TrainState, the teacher's variables or None)."""
  model, distiller, teacher = networks(case)
  variables = None if teacher is None else abstract_variables(teacher)
  rule = optimizer(case.config.optimizer, case.config.train.steps)

  def initial(variables: Any) -> Any:
    return initial_state(model, distiller, rule, case.config.seed, (teacher, variables) if teacher else None)

  return jax.eval_shape(initial, variables), variables


def _batch(config: ml_collections.ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a global batch as the host sends it."""
  one = config.copy_and_resolve_references()
  one.train.batch_size = 1
  shapes = {name: (x.shape[1:], x.dtype) for name, x in random_batch(one).items()} | {"index": ((), np.uint32)}
  return {name: jax.ShapeDtypeStruct((config.train.batch_size, *shape), dtype)
          for name, (shape, dtype) in shapes.items()}
