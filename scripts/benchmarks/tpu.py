"""The training step, compiled for TPUs that are not there: what the compiler says of time, memory and traffic.

libtpu compiles for a described topology without any TPU. Only shapes are given to it, no weights are made. Every case
is a process of its own, which can be ended when it takes too long.
"""

import collections
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import hlo, isolated
from benchmarks.cases import Case, random_batch
from benchmarks.footprint import gib
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
                "TPU_ACCELERATOR_TYPE": "v5litepod-16", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


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
    UserError: libtpu does not know it.
  """
  try:
    found = topologies.get_topology_desc(topology, "tpu").devices
  except jax.errors.JaxRuntimeError as error:
    if "INVALID_ARGUMENT: " not in str(error):
      raise
    why = str(error).removeprefix("INVALID_ARGUMENT: ").splitlines()[0]
    raise UserError(f"--topology={topology}: expected one such as v5e:2x2, v5e:16x16 or v5p:4x4x8 ({why})") from error
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


_NUMBERS = ("lower (s)", "compile (s)", "memory (GiB)", "of (GiB)", "GFLOP", "GB", "collectives", "collectives (MB)",
            "kernels", "fusions", "in loops", "padding", "estimate (ms)", "at least (ms)", "not estimated", "pairs/s")


def tables(cases: list[Case], given: list[str], layouts: list[str], batches: list[int], limit: float
           ) -> Iterator[tuple[str, Iterable[dict]]]:
  """(title, rows) one after the other; the rows are made while they are read.

  Args:
    cases: their batch size and layout are replaced.
    given: topologies.
    layouts: of `LAYOUTS`.
    batches: pairs per device.
    limit: seconds that a case may take; it is given up then, and the row says so.
  """
  kept: list[dict] = []
  combinations = itertools.product(cases, given, layouts, batches)
  yield "One device's program of the training step", (kept.append(row) or row for row in (
      _row(*combination, limit) for combination in combinations))
  for row in kept:
    if row["modules"]:
      what = (row[name] for name in ("case", "dtype", "topology", "layout", "pairs per device"))
      yield "Kernels by module: " + ", ".join(map(str, what)), row["modules"]


def _row(case: Case, topology: str, layout: str, pairs: int, limit: float) -> dict:
  places = devices(topology)
  count = len(host_devices(places) if layout == "population" else places)
  row = {"case": case.name, "dtype": case.config.model.dtype, "topology": topology, "devices": count, "layout": layout,
         "pairs per device": pairs, **dict.fromkeys(_NUMBERS)}
  arguments = {"name": case.name, "topology": topology, "layout": layout, "pairs": pairs}
  for name, config in (("config", case.config), ("teacher", case.teacher_config)):
    arguments[name] = None if config is None else json.loads(config.to_json_best_effort())
  return row | {"note": "", "modules": []} | _measured(arguments, limit)


def _measured(arguments: dict, limit: float) -> dict:
  try:
    (row,) = isolated.run("tpu", arguments, timeout=limit)
  except subprocess.TimeoutExpired:
    return {"note": f"not compiled after {limit:.0f} s"}
  except isolated.Failed as failure:
    if "RESOURCE_EXHAUSTED" not in str(failure):
      raise
    needs = re.search(r"[Uu]sed ([\d.]+[KMGT]) of ([\d.]+[KMGT])|\(([\d.]+[KMGT])\) exceeds .*\(([\d.]+[KMGT])\)",
                      str(failure))
    used, has = [part for part in needs.groups() if part] if needs else ("more", "what it has")
    return {"note": f"out of memory: {used} of {has}"}
  return row


def compiled_row(case: Case, topology: str, layout: str, pairs: int) -> dict:
  """The numbers of a row of `rows`, and "modules", rows of `by_module`."""
  places = devices(topology)
  times = [time.perf_counter()]
  program = lowered(case, layout, places, pairs)
  times.append(time.perf_counter())
  compiled = program.compile()
  times.append(time.perf_counter())
  text = compiled.as_text()
  count = len(host_devices(places) if layout == "population" else places)
  chip = CHIPS.get(places[0].device_kind, Chip(float("nan"), float("nan")))
  row = {"lower (s)": times[1] - times[0], "compile (s)": times[2] - times[1]}
  return row | _read(compiled, hlo.Module(text), chip, count * pairs)


def _read(compiled: jax.stages.Compiled, module: hlo.Module, chip: Chip, pairs: int) -> dict:
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  taken = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
           + memory.temp_size_in_bytes)
  kernels, collectives = module.kernels(), module.collectives()
  seconds = sum((kernel.cycles or 0) * times for kernel, times in kernels) / chip.clock
  sizes = [(times * a, times * b) for kernel, times in kernels for a, b in hlo.sizes_of(kernel.shape)]
  least = cost["optimal_seconds"]
  return {
      "memory (GiB)": gib(taken), "of (GiB)": gib(chip.memory), "GFLOP": cost["flops"] / 1e9,
      "GB": cost["bytes accessed"] / 1e9,
      "collectives": ", ".join(f"{count} {kind}" for kind, (count, _) in sorted(collectives.items())) or "none",
      "collectives (MB)": sum(size for _, size in collectives.values()) / 1e6,
      "kernels": sum(times for _, times in kernels),
      "fusions": sum(kernel.operation == "fusion" for kernel, _ in kernels),
      "in loops": sum(times for kernel, times in kernels if times > 1),
      "padding": 1 - sum(a for a, _ in sizes) / max(sum(b for _, b in sizes), 1),
      "estimate (ms)": 1e3 * seconds, "at least (ms)": 1e3 * (least - np.floor(least)),
      "not estimated": sum(times for kernel, times in kernels if kernel.cycles is None),
      "pairs/s": pairs / seconds if seconds else None, "modules": by_module(module, chip)}


def by_module(module: hlo.Module, chip: Chip) -> list[dict]:
  """Rows that say where the kernels come from, most kernels first.

  The network's are named by module, two levels deep; the others by the file and function that they were written in. A
  fusion counts where its last operation comes from.
  """
  groups: dict[str, list[tuple[hlo.Instruction, int]]] = collections.defaultdict(list)
  for kernel, times in module.kernels():
    path = module_path(kernel.op_name)
    if "/" not in path:  # Of no inner module.
      path = module.source(kernel, "siamdff_jax/") or path or "compiler's own"
    groups[path].append((kernel, times))
  found = []
  for name, kernels in groups.items():
    cycles = sum((kernel.cycles or 0) * times for kernel, times in kernels)
    without = collections.Counter(kernel.operation for kernel, _ in kernels if kernel.cycles is None)
    found.append({
        "module": name, "kernels": sum(times for _, times in kernels),
        "fusions": sum(kernel.operation == "fusion" for kernel, _ in kernels),
        "of the gradient": sum(times for kernel, times in kernels if "transpose(" in kernel.op_name),
        "in loops": sum(times for _, times in kernels if times > 1), "estimate (ms)": 1e3 * cycles / chip.clock,
        "not estimated": ", ".join(f"{count} {operation}" for operation, count in without.most_common())})
  return sorted(found, key=lambda row: -row["kernels"])


def module_path(op_name: str) -> str:
  """"SiamDFF/sten_2/search_merge" of "jit(step)/transpose(jvp(SiamDFF))/SiamDFF.track/sten_2/search_merge/conv/add"."""
  parts = op_name.split("/")
  for i, part in enumerate(parts):
    root = re.fullmatch(r"(?:\w+\()*([A-Z]\w+|teacher)\)*", part)
    if root:  # A Flax module that is called on its own. Methods are no modules, nor is the last part, an operation.
      inner = [p for p in parts[i + 1:-1] if re.fullmatch(r"[a-z]\w*", p)]
      return "/".join([root[1], *inner[:2]])
  return ""


if __name__ == "__main__":
  prepare()
  asked = json.loads(sys.argv[1])
  student, of = (value and ml_collections.ConfigDict(value) for value in (asked.pop("config"), asked.pop("teacher")))
  print(json.dumps([compiled_row(Case(asked.pop("name"), student, of), **asked)]))
