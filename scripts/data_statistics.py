#!/usr/bin/env python3
"""Measures the boxes of a data set and prints them as a Markdown table beside those of Anti-UAV410's test split.

  scripts/data_statistics.py --format=antiuav --root=data/val
  scripts/data_statistics.py --format=antiuav410 --root=runs/simulated --contrast

Sizes, aspect ratios, motion, absences and windows, as defined in input_pipeline/datasets/statistics.py. Nothing passes
or fails. Only annotations are read, unless --contrast is given. Formats: see scripts/check_data.py.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from input_pipeline.datasets import statistics
from siamdff_jax import cli

_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "How the data set is laid out.", required=True)
_ROOT = flags.DEFINE_string("root", None, "The folder of the data set.", required=True)
_CONTRAST = flags.DEFINE_bool("contrast", False, "Also measure how far targets stand out, from up to 20 frames each.")


def main(_: list[str]) -> None:
  sequences = datasets.load(_FORMAT.value, _ROOT.value, frames=_CONTRAST.value)
  values = statistics.measure(sequences)
  if _CONTRAST.value:
    values[statistics.CONTRAST] = statistics.measure_contrast(sequences)
  print(f"{len(sequences)} sequences, {sum(len(sequence) for sequence in sequences)} frames\n")
  print("\n".join(statistics.table(values)))


if __name__ == "__main__":
  cli.run(main)
