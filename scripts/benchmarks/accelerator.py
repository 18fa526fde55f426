"""What is worth knowing of a GPU or a TPU, most wanted first: the stations of `scripts/benchmark.py accelerator`.

Each is another command of `scripts/benchmark.py`. Seconds are our estimates for one H200, compilation included, of
which there is more than of anything else.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import cases
from benchmarks.campaign import Station

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_R50 = "r50"  # Whatever it is in takes longer.


def stations(networks: Sequence[str], overrides: Mapping[str, Any], batches: Sequence[int], streams: Sequence[int],
             frames: int, repeats: int) -> list[Station]:
  """The list, in order.

  Args:
    networks: of `cases.PAIRS`, most wanted first; the last one stands for small networks where one is enough.
    overrides: of all configs, {"model.dtype": "float32"}.
    batches: ascending; where there is one only, it is the last.
    streams: of tracking.
    frames: of tracking.
    repeats: of all.
  """
  last, small = batches[-1], networks[-1]

  def station(name: str, seconds: float, command: str, *options: str, network: str = "", repeats: int = repeats,
              **more: Any) -> Station:
    # The mesh layout: on one device it is the plain jitted step, and it tells its memory.
    settings = [f"--config.{key}={value}" for key, value in {"layout.kind": "mesh", **overrides}.items()]
    config = [f"--config=configs/{cases.PAIRS[network][0]}.py", *settings] if network else []
    return Station(name, [sys.executable, "scripts/benchmark.py", command, *config, *options, f"--repeats={repeats}"],
                   seconds, **{"limit": 2 * seconds, "folder": str(_ROOT), **more})

  found = []
  for network in networks:
    seconds = (100 if network == _R50 else 70) * len(batches)
    found.append(station(f"step-{network}", seconds, "step", _teacher(network),
                         f"--batch={','.join(map(str, batches))}", network=network))
  for network in networks:
    found.append(station(f"kernels-{network}", 60, "kernels", _teacher(network), f"--batch={last}",
                         network=network, limit=240))  # Compiled by the step's station, if that ran.
  found.append(station("depthwise-shift", 30, "depthwise", "--forms=shift", f"--batch={batches[0]}"))
  for operation in ("convolution", "correlation"):
    found.append(station(f"depthwise-grouped-{operation}", 60, "depthwise", "--forms=grouped",
                         f"--shapes={operation}", f"--batch={batches[0]}", may_not_end=True))
  found += [_pytorch(station, network, "training", f"--batch={last}") for network in networks]
  found.append(station(f"population-{small}", 120, "population", f"--batch={last}", network=small))
  for network in networks:
    found.append(station(f"tracking-{network}", 120, "tracking", f"--streams={','.join(map(str, streams))}",
                         f"--frames={frames}", network=network, repeats=min(repeats, 3)))
  found.append(station(f"loop-{small}", 90, "loop", _teacher(small), f"--batch={last}", network=small))
  return found + [_pytorch(station, network, "search") for network in networks]


def _teacher(network: str) -> str:
  return f"--teacher={cases.PAIRS[network][1]}"


def _pytorch(station: Any, network: str, kind: str, *options: str) -> Station:
  absent = "" if importlib.util.find_spec("torch") else "PyTorch is not installed: requirements-bench.txt"
  # Both sides share the device's memory, of which JAX would take three quarters.
  return station(f"pytorch-{kind}-{network}", 240 if network == _R50 else 180, "pytorch", f"--passes={kind}", *options,
                 network=network, absent=absent, environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
