#!/usr/bin/env python3
"""Makes labelled thermal-infrared drone sequences: DIR/sim_000000/000001.jpg ... with IR_label.json.

The same seed gives the same sequences. A run that was interrupted is continued by the same command. At the end
DIR/contact_sheet.png shows twelve of the frames.

Example: python scripts/simulate.py --out=/tmp/simulated --sequences=20 --frames=100 --seed=0
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax import cli

_OUT = flags.DEFINE_string("out", None, "Folder to write to; made when it is not there.", required=True)
_SEQUENCES = flags.DEFINE_integer("sequences", 20, "How many sequences.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 100, "Frames per sequence.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the data set.", lower_bound=0)
_WIDTH = flags.DEFINE_integer("width", 640, "Width of the frames in pixels.", lower_bound=32)
_HEIGHT = flags.DEFINE_integer("height", 512, "Height of the frames in pixels.", lower_bound=32)


def main(_):
  sheet = write_dataset(_OUT.value, _SEQUENCES.value, _FRAMES.value, _SEED.value, _WIDTH.value, _HEIGHT.value)
  print(f"{_SEQUENCES.value} sequences in {_OUT.value}; look at {sheet}")


if __name__ == "__main__":
  cli.run(main)
