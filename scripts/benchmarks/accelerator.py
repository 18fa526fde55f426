"""What is worth knowing of a GPU or a TPU, most wanted first: the stations of `scripts/benchmark.py accelerator`.

Each is another command of `scripts/benchmark.py`. The seconds are our estimates for one H200, most of them compilation;
none is measured yet.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import cases, pytorch
from benchmarks.campaign import Station

NETWORKS = ("r50", "shipped_r18", "shipped_lite")
_ROOT = pathlib.Path(__file__).resolve().parents[2]
# The mesh layout: on one device it is the plain jitted step, and it tells its memory.
_SETTINGS = {"layout.kind": "mesh", "model.dtype": "bfloat16"}


def stations(networks: Sequence[str], overrides: Mapping[str, Any], batches: Sequence[int], streams: Sequence[int],
             frames: int, repeats: int) -> list[Station]:
  """The list, in order.

  Args:
    networks: of `cases.PAIRS`, most wanted first; the last one stands for small networks where one is enough.
    overrides: of all configs, {"model.dtype": "float32"}; else it is bfloat16.
    batches: ascending; where there is one only, it is the last.
    streams: of tracking.
    frames: of tracking.
    repeats: of all.
  """
  last, small = batches[-1], networks[-1]

  def station(name: str, seconds: float, command: str, *options: str, network: str = "", repeats: int = repeats,
              **more: Any) -> Station:
    settings = [f"--config.{key}={value}" for key, value in {**_SETTINGS, **overrides}.items()]
    config = [f"--config={_file(network)}", *settings] if network else []
    return Station(name, [sys.executable, "scripts/benchmark.py", command, *config, *options, f"--repeats={repeats}"],
                   seconds, **{"limit": 2 * seconds, "folder": str(_ROOT), **more})

  def against_pytorch(network: str, name: str, *options: str) -> Station:
    # Both sides share the device's memory, of which JAX would take three quarters.
    return station(f"pytorch-{name}-{network}", 180 if _is_large(network) else 120, "pytorch", f"--passes={name}",
                   *options, network=network, absent=_not_in_pytorch(network, overrides),
                   environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})

  found = []
  for network in networks:
    seconds = 30 + (75 if _is_large(network) else 40) * len(batches)
    found.append(station(f"step-{network}", seconds, "step", *_teacher(network),
                         f"--batch={','.join(map(str, batches))}", network=network))
  for network in networks:
    found.append(station(f"kernels-{network}", 45, "kernels", *_teacher(network), f"--batch={last}",
                         network=network, limit=240))  # Compiled by the step's station, if that ran.
  found.append(station("depthwise-shift", 30, "depthwise", "--forms=shift", f"--batch={batches[0]}"))
  for operation in ("convolution", "correlation"):
    found.append(station(f"depthwise-grouped-{operation}", 45, "depthwise", "--forms=grouped",
                         f"--shapes={operation}", f"--batch={batches[0]}", may_not_end=True))
  for network in networks:  # There both networks are in memory, none of them rematerialised.
    batch = batches[0] if _is_large(network) else last
    found.append(against_pytorch(network, "training", f"--batch={batch}"))
  found.append(station(f"population-{small}", 90, "population", f"--batch={last}", network=small))
  for network in networks:
    found.append(station(f"tracking-{network}", 90 if _is_large(network) else 60, "tracking",
                         f"--streams={','.join(map(str, streams))}", f"--frames={frames}", network=network,
                         repeats=min(repeats, 3)))
  found.append(station(f"loop-{small}", 60, "loop", *_teacher(small), f"--batch={last}", network=small))
  return found + [against_pytorch(network, "search") for network in networks]


def _file(network: str) -> str:
  name, colon, variant = cases.PAIRS[network][0].partition(":")
  return f"configs/{name}.py{colon}{variant}"


def _teacher(network: str) -> list[str]:
  teacher = cases.PAIRS[network][1]
  return [f"--teacher={teacher}"] if teacher else []


def _is_large(network: str) -> bool:
  """Whether an r50 takes part."""
  return "siamdff_r50" in cases.PAIRS[network]


def _not_in_pytorch(network: str, overrides: Mapping[str, Any]) -> str:
  if not importlib.util.find_spec("torch"):
    return "PyTorch is not installed: requirements-bench.txt"
  return pytorch.not_comparable(cases.overridden(cases.load(_file(network))[1], overrides).model)
