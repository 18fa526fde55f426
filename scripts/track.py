#!/usr/bin/env python3
"""Follows one target through a video or a folder of frames.

  scripts/track.py --checkpoint runs/student --input drone.mp4 --box 310,220,24,16 --out runs/drone

Writes boxes.json (Anti-UAV form: {"res": [[x,y,w,h] or []], "score", "present", "init"}) and track.mp4. "time" has the
seconds of every frame where the input knows them. "incomplete" says how many frames of how many the boxes are of, and
why: frames could not be read, or the process was stopped. The exit code is not 0 then.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Training workdir, a checkpoint in one, or a shipped model.")
_INPUT = flags.DEFINE_string("input", None, "Video file or folder of images.")
_BOX = flags.DEFINE_list("box", None, "x,y,w,h of the target in the first frame, pixels, 0-based.")
_OUT = flags.DEFINE_string("out", None, "Folder for boxes.json and track.mp4.")
_TRACKER = flags.DEFINE_multi_string(
    "tracker", [], "NAME=VALUE: a setting of the tracker instead of the checkpoint's own, for example tiles=8. "
    "Repeat it for several.")
flags.mark_flags_as_required(["checkpoint", "input", "box", "out"])


def main(_: list[str]) -> None:
  from siamdff_jax.tracking.single import track_input

  track_input(_CHECKPOINT.value, _INPUT.value, _BOX.value, _OUT.value, _TRACKER.value)


if __name__ == "__main__":
  cli.run(main)
