"""Scaling on paper: bytes moved per step, compute and communication time, input needed per host."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Case
from siamdff_jax import distillation
from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables
from siamdff_jax.training import throughput
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import initial_state

MFU = 0.4  # Assumed share of the peak that the step reaches; measure yours with `benchmark.py step`.
PAIRS_PER_CORE = 1100  # From packed records, measured by `benchmark.py input` (docs/performance.md).
LATENCY = 20e-6  # Assumed seconds of an all-reduce too small for its bandwidth to matter.


@dataclasses.dataclass(frozen=True)
class Machine:
  """A set of accelerators.

  Attributes:
    kind: device kind, for `throughput.peak_flops` (bfloat16).
    memory: bytes per chip.
    bandwidth: bytes/s that a chip sends to (and at the same time receives from) its neighbours.
    vcpus_per_host: vCPUs of the host's machine type, two of which are a core.
  """

  name: str
  kind: str
  chips: int
  chips_per_host: int
  memory: float
  bandwidth: float
  vcpus_per_host: int


# Sources: NVIDIA "H100 Tensor Core GPU" data sheet (80 GB; NVLink 900 GB/s, both directions together) and Google Cloud
# "A3 machine types" (a3-highgpu-8g, 208 vCPU); Google Cloud TPU documentation, pages "TPU v5e" (16 GB, bidirectional
# ICI 400 GB/s per chip, 2D torus; hosts of 4 chips with 112 vCPU in a slice) and "TPU v5p" (95 GiB, bidirectional ICI
# 1200 GB/s per chip, 3D torus, 208 vCPU per 4 chips). v5p-512 counts TensorCores: 4x8x8 = 256 chips.
MACHINES = (
    Machine("8 x H100 SXM", "NVIDIA H100 80GB HBM3", 8, 8, 80e9, 450e9, 208),
    Machine("v5e-256", "TPU v5e", 256, 4, 16e9, 200e9, 112),
    Machine("v5p-512", "TPU v5p", 256, 4, 95 * 2**30, 600e9, 208),
)


def all_reduce_bytes(size: float, chips: int) -> float:
  """Bytes that each of `chips` sends in a ring all-reduce of `size` bytes: a reduce-scatter and an all-gather."""
  return 2 * (chips - 1) / chips * size


def fsdp_bytes(size: float, chips: int) -> float:
  """Bytes that each chip sends with sharded parameters: gathered forward and again backward, gradients scattered."""
  return 3 * (chips - 1) / chips * size


def _bytes(tree: Any) -> int:
  """Of all arrays of a pytree."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def state_bytes(case: Case) -> dict[str, int]:
  """Bytes of what a step keeps, from shapes alone: "trained" (parameters, optimizer, average, statistics), "gradients",
  "teacher"."""
  config, model = case.config, build(case.config.model)
  rule = optimizer(config.optimizer, config.train.steps)
  if case.teacher_config is None:
    state, teacher_variables = jax.eval_shape(lambda: initial_state(model, None, rule, 0)), {}
  else:
    teacher = build(case.teacher_config.model)
    teacher_variables = abstract_variables(teacher)
    distiller = distillation.build(config.distiller)
    state = jax.eval_shape(lambda v: initial_state(model, distiller, rule, 0, (teacher, v)), teacher_variables)
  return {"trained": _bytes(state), "gradients": _bytes(state.params), "teacher": _bytes(teacher_variables)}


def small_exchanges(case: Case) -> int:
  """All-reduces per step for the statistics of batch normalisation: per layer and branch one forward, one backward, and
  one more where the backbone is computed twice (remat)."""
  model = build(case.config.model)
  if case.config.model.norm != "batch":
    return 0
  leaves = jax.tree_util.tree_leaves_with_path(abstract_variables(model)["batch_stats"])
  paths = [jax.tree_util.keystr(path) for path, _ in leaves if path[-1].key == "mean"]
  again = sum("stage" in path for path in paths) if case.config.model.backbone.get("remat") else 0
  return 2 * (2 * len(paths) + again)


def roofline(machine: Machine, flops: float, sizes: dict[str, int], batch_per_chip: int, fsdp: bool,
             exchanges: int = 0) -> dict:
  """One row, from numbers alone.

  Args:
    machine: where.
    flops: per pair.
    sizes: from `state_bytes`.
    batch_per_chip: pairs.
    exchanges: from `small_exchanges`.
    fsdp: parameters, gradients, optimizer and average sharded over all chips (the teacher too), or all on every chip.

  Returns:
    Communication is taken as not hidden behind computation at all, the worst case; "input" is what a host must deliver
    at that rate. Activations are not in "state (GiB)" (see `memory`).
  """
  compute = flops * batch_per_chip / (throughput.peak_flops(machine.kind, jnp.bfloat16) * MFU)
  if fsdp:
    moved = fsdp_bytes(sizes["gradients"], machine.chips)
    moved += 1 / 3 * fsdp_bytes(sizes["teacher"], machine.chips)  # Gathered once, forward.
  else:
    moved = all_reduce_bytes(sizes["gradients"], machine.chips)
  communication = moved / machine.bandwidth + exchanges * LATENCY
  rate = machine.chips * batch_per_chip / (compute + communication)
  per_host = rate * machine.chips_per_host / machine.chips
  kept = sum(sizes.values()) / (machine.chips if fsdp else 1)
  return {
      "machine": machine.name, "layout": "FSDP" if fsdp else "data parallel", "pairs/chip": batch_per_chip,
      "sent per chip (MB)": moved / 1e6, "small all-reduces": exchanges, "compute (ms)": 1e3 * compute,
      "communication (ms)": 1e3 * communication, "communication/compute": communication / compute, "pairs/s": rate,
      "hosts": machine.chips // machine.chips_per_host, "input per host (pairs/s)": per_host,
      "cores per host needed": per_host / PAIRS_PER_CORE, "cores per host": machine.vcpus_per_host // 2,
      "state (GiB/chip)": kept / 2**30, "memory (GiB/chip)": machine.memory / 2**30,
  }


def rows(cases: Iterable[Case], batches_per_chip: Iterable[int], machines: Iterable[Machine] = MACHINES
         ) -> Iterator[dict]:
  """Every case on every machine, data parallel and FSDP. Nothing is compiled or run."""
  for case in cases:
    flops, sizes = throughput.model_flops(case.config, case.teacher_config), state_bytes(case)
    exchanges = small_exchanges(case)
    for machine in machines:
      for batch in batches_per_chip:
        for fsdp in (False, True):
          yield {"case": case.name} | roofline(machine, flops, sizes, batch, fsdp, exchanges)
