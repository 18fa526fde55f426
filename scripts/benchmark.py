#!/usr/bin/env python3
"""Measures speed: medians over repeats, as a table, with the device.

  scripts/benchmark.py --what depthwise
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_WHAT = flags.DEFINE_enum("what", "depthwise", ["depthwise"], "depthwise: the two forms of every depthwise operation.")
_REPEATS = flags.DEFINE_integer("repeats", 9, "Counted calls of each.", lower_bound=1)


def main(_):
  import jax

  from siamdff_jax import benchmarks

  rows = {"depthwise": benchmarks.depthwise_forms}[_WHAT.value](_REPEATS.value)
  print(f"{jax.devices()[0].device_kind} ({jax.default_backend()}), jax {jax.__version__}, medians of {_REPEATS.value}")
  print("| " + " | ".join(rows[0]) + " |\n|" + " --- |" * len(rows[0]))
  for row in rows:
    print("| " + " | ".join(value if isinstance(value, str) else f"{value:.1f}" for value in row.values()) + " |")


if __name__ == "__main__":
  cli.run(main)
