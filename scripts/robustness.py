#!/usr/bin/env python3
"""Tracks a data set as recorded and as other cameras might have shown it (polarity, gain, noise, blur, resolution), and
tables what each of these costs.

  scripts/robustness.py --checkpoint lite --checkpoint r18 --format antiuav --root DATA/val --out runs/robustness

Writes robustness.md and .png, conditions.png (what the conditions look like), and for each tracker a report that
compares the conditions. The same command goes on where it was stopped.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.conditions import CONDITIONS
from siamdff_jax import cli

_OF = cli.define_trackers()
_BASELINES = flags.DEFINE_list("baselines", [], "OpenCV's trackers to run too: opencv (all), or KCF, CSRT, ...")
_CONDITIONS = flags.DEFINE_list("conditions", [], f"Some of {', '.join(CONDITIONS)}; default all.")
_STREAMS = flags.DEFINE_integer("streams", 8, "Sequences tracked in lockstep.", lower_bound=1)


def main(_: list[str]) -> None:
  from siamdff_jax.experiments import robustness
  from siamdff_jax.tracking.runner import one_device_per_core

  one_device_per_core()
  robustness.assess(_OF.checkpoint.value, _BASELINES.value, _OF.format.value, _OF.root.value, _OF.out.value,
                    conditions=_CONDITIONS.value, settings=_OF.tracker.value, only=_OF.only.value,
                    streams=_STREAMS.value)


if __name__ == "__main__":
  cli.run(main)
