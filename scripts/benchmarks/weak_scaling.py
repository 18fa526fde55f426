"""Weak scaling on virtual CPU devices: that the layouts serialise nothing.

More virtual devices bring no more cores, so nothing gets faster. What shows is the layout's overhead: n devices with b
pairs each against one device with the same n b pairs, which is the same arithmetic.
"""

import json
import sys
from collections.abc import Iterable, Iterator

import jax
import ml_collections

from benchmarks import isolated, timing
from benchmarks.cases import Case
from benchmarks.step import BareStep

LAYOUTS = ("pmap", "mesh")


def rows(config: ml_collections.ConfigDict, pairs_per_device: int, repeats: int, devices: Iterable[int] = (1, 2, 4, 8)
         ) -> list[dict]:
  """Step times over the numbers of devices, in one new process that has them all, round by round.

  Args:
    config: a whole config that a CPU can train; without distillation.
    pairs_per_device: batch size per virtual device.
    repeats: rounds.
    devices: numbers of virtual devices.
  """
  arguments = {"config": json.loads(config.to_json_best_effort()), "pairs_per_device": pairs_per_device,
               "repeats": repeats, "devices": list(devices)}
  return isolated.run("weak_scaling", arguments, {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(max(devices))})


def measured(config: ml_collections.ConfigDict, pairs_per_device: int, repeats: int, devices: list[int]
             ) -> Iterator[dict]:
  """The rows, in a process with enough devices."""
  for count in devices:
    batch = count * pairs_per_device
    steps = {"one device": _step(config, batch, "mesh", 1)}
    steps |= {layout: _step(config, batch, layout, count) for layout in LAYOUTS}
    times = timing.interleaved({name: lambda bare=bare: bare.run(1) for name, bare in steps.items()}, repeats)
    seconds = {name: timing.median(found) for name, found in times.items()}
    row = {"devices": count, "batch": batch, "one device (ms)": 1e3 * seconds["one device"]}
    for layout in LAYOUTS:
      row[f"{layout} (ms)"] = 1e3 * seconds[layout]
      row[f"{layout}, per device (ms)"] = 1e3 * seconds[layout] / count
      row[f"{layout} / one device"] = seconds[layout] / seconds["one device"]
    yield row | {"seconds": times}


def _step(config: ml_collections.ConfigDict, batch: int, layout: str, devices: int) -> BareStep:
  return BareStep(Case(layout, config).with_batch(batch, kind=layout), jax.devices()[:devices])


if __name__ == "__main__":
  given = json.loads(sys.argv[1])
  print(json.dumps(list(measured(**given | {"config": ml_collections.ConfigDict(given["config"])}))))
