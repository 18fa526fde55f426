#!/usr/bin/env python3
"""Checks a data set: reads all labels, decodes all frames, lists every problem by sequence and file, with counts.

  scripts/check_data.py --format=antiuav --root=data/val

Ends with exit code 1 when there is an error, with 0 when there is none (warnings may be). Formats:

  antiuav      <sequence>/infrared.mp4 (.avi, .mkv, .mov) or frames, and infrared.json or IR_label.json
  antiuav410   <split>/<sequence>/*.jpg and IR_label.json or annos/<split>/<sequence>.txt
  cst_antiuav  the same
  lsotb_tir    <sequence>/img/*.jpg and anno/<sequence>.txt beside, or groundtruth_rect.txt (1-based boxes)
  ptb_tir      <sequence>/img/*.jpg and tiranno/<sequence>.txt beside, or groundtruth_rect.txt (1-based boxes)
  got10k       <split>/list.txt, <sequence>/*.jpg, groundtruth.txt (1-based boxes), *.label, meta_info.ini
  lasot        <class>/<class>-N/img/*.jpg, groundtruth.txt (1-based boxes), full_occlusion.txt, out_of_view.txt
  otb          <sequence>/img/*.jpg and groundtruth_rect.txt or groundtruth.txt (1-based boxes)
  uav123       anno/<set>/<sequence>.txt (1-based boxes) and data_seq/UAV123/<folder>/*.jpg
  dtb70        <sequence>/img/*.jpg and groundtruth_rect.txt (1-based boxes)
  plain        images or a video, and groundtruth.txt (0-based boxes, optional here)

The root holds sequences, or train/, val/, test/ with sequences, or is one sequence. For UAV123 it can also be the
folder of one set, anno/UAV123 or anno/UAV20L; for LaSOT, a list such as testing_set.txt in the data set's folder.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli

_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "How the data set is laid out.", required=True)
_ROOT = flags.DEFINE_string("root", None, "The folder of the data set.", required=True)


def main(_: list[str]) -> int:
  report = datasets.check(_FORMAT.value, _ROOT.value)
  print("\n".join(report.lines()))
  return 1 if report.num_errors else 0


if __name__ == "__main__":
  cli.run(main)
