#!/usr/bin/env python3
"""Compares what networks see in windows about the true place, as recorded and as other cameras might have shown it.

  scripts/windows.py --checkpoint lite --checkpoint runs/student --format antiuav --root DATA/val --out runs/windows

Minutes instead of the hours of scripts/robustness.py, and with far less chance in it, as no window depends on what was
seen before: for choosing between networks. Writes windows.md (IoU of the best box; how well presence separates the
target from what looks like it; differences with intervals) and windows.json (the same by sequence).

To choose between ways of training, train each with several seeds, and give NAME=CHECKPOINT once for each training: then
tables show means over them, and differences have an interval over the trainings too. The shell writes such a list:

  scripts/windows.py --checkpoint=undistilled=runs/undistilled_{0,1,2} --checkpoint=distilled=runs/distilled_{0,1,2} ...
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.conditions import CONDITIONS
from siamdff_jax import cli

_OF = cli.define_trackers()
_CONDITIONS = flags.DEFINE_list("conditions", [], f"Some of {', '.join(CONDITIONS)}; default all.")
_FRAMES = flags.DEFINE_integer("frames", 5, "Of each sequence.", lower_bound=1)


def main(_: list[str]) -> None:
  from siamdff_jax.experiments import windows

  windows.assess(_OF.checkpoint.value, _OF.format.value, _OF.root.value, _OF.out.value, conditions=_CONDITIONS.value,
                 settings=_OF.tracker.value, only=_OF.only.value, frames=_FRAMES.value)


if __name__ == "__main__":
  cli.run(main)
