#!/usr/bin/env python3
"""Makes labelled thermal-infrared drone sequences: DIR/sim_000000/000001.jpg ... with IR_label.json.

The same seed gives the same sequences. A run that was interrupted is continued by the same command. At the end
DIR/contact_sheet.png shows twelve of the frames.

  scripts/simulate.py --out=DIR --sequences=20 --frames=100 --seed=0
  scripts/simulate.py --out=DIR --sequences=60 --frames=300 --trajectories=camera_jumps
  scripts/simulate.py --out=DIR --sequences=300 --sizes=320x256,640x512,1280x1024
  scripts/simulate.py --out=DIR --sequences=22 --frames=300 --replay=antiuav:data/val
  scripts/simulate.py --out=DIR --sequences=200 --backgrounds=antiuav:data/train

With --beside, DIR/beside.jpg shows frames of it on the left and of a real data set on the right.
"""

import re

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape
from input_pipeline.simulator.dataset import write_beside, write_dataset
from siamdff_jax import cli

_OUT = flags.DEFINE_string("out", None, "Folder to write to; made when it is not there.", required=True)
_SEQUENCES = flags.DEFINE_integer("sequences", 20, "How many sequences.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 100, "Frames per sequence; at most so many with --replay.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes; what is written does not depend on it.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the data set.", lower_bound=0)
_WIDTH = flags.DEFINE_integer("width", 640, "Width of the frames in pixels.", lower_bound=32)
_HEIGHT = flags.DEFINE_integer("height", 512, "Height of the frames in pixels.", lower_bound=32)
_SIZES = flags.DEFINE_list("sizes", [], "Sizes WIDTHxHEIGHT instead, of which each sequence draws one.")
_TRAJECTORIES = flags.DEFINE_enum(
    "trajectories", "drawn", ["drawn", "camera_jumps"],
    "With the measured statistics, or besides with several camera jumps of up to half the frame in every sequence.")
_REPLAY = flags.DEFINE_string("replay", None, "FORMAT:ROOT of a data set whose boxes the targets follow.")
_BACKGROUNDS = flags.DEFINE_string("backgrounds", None,
                                   "FORMAT:ROOT of a data set whose frames, without their targets, are the scenes.")
_BESIDE = flags.DEFINE_string("beside", None, "FORMAT:ROOT of a data set to put beside this one in a picture.")


def _shapes(texts):
  for text in texts:
    if not re.fullmatch(r"[1-9]\d{1,4}x[1-9]\d{1,4}", text):
      raise UserError(f"--sizes: {text!r} is no size, expected for example 640x512")
  return [FrameShape(rows=int(height), columns=int(width)) for width, _, height in (t.partition("x") for t in texts)]


def _data_set(flag):
  """(format, root) of a flag FORMAT:ROOT, None where it is not given."""
  if flag.value is None:
    return None
  format, colon, root = flag.value.partition(":")
  if not (format and colon and root):
    raise UserError(f"--{flag.name}: {flag.value!r}, expected FORMAT:ROOT, for example antiuav:data/val")
  return format, root


def main(_):
  beside = _data_set(_BESIDE)
  sheet = write_dataset(_OUT.value, _SEQUENCES.value, _FRAMES.value, _SEED.value, _WIDTH.value, _HEIGHT.value,
                        shapes=_shapes(_SIZES.value), camera_jumps=_TRAJECTORIES.value == "camera_jumps",
                        replay=_data_set(_REPLAY), backgrounds=_data_set(_BACKGROUNDS), workers=_WORKERS.value)
  pictures = [sheet] if beside is None else [sheet, write_beside(_OUT.value, _SEQUENCES.value, *beside)]
  print(f"{_SEQUENCES.value} sequences in {_OUT.value}; look at {' and '.join(map(str, pictures))}")


if __name__ == "__main__":
  cli.run(main)
