#!/usr/bin/env python3
"""Prints parameters and GFLOPs (2 x multiply-adds) of the networks that the configs describe.

  scripts/summary.py [--names siamdff_r50,siamdff_r18,siamdff_lite,svanstrom:teacher,svanstrom,quickstart]
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli

_NAMES = flags.DEFINE_list("names", ["siamdff_r50", "siamdff_r18", "siamdff_lite", "svanstrom:teacher", "svanstrom"],
                           "Files in configs/, NAME or NAME:variant.")


def main(_: list[str]) -> None:
  from siamdff_jax import config_files
  from siamdff_jax.config_check.experiment import check
  from siamdff_jax.models.summary import summarize

  configs = {entry: config_files.load(config_files.find(entry)) for entry in _NAMES.value}
  for entry, config in configs.items():
    check(config, entry)
  print("| config | template / search side | parameters (M) | search (GFLOP) | template, once (GFLOP) |")
  print("| --- | --- | ---: | ---: | ---: |")
  for entry, whole in configs.items():
    config = whole.model
    numbers = summarize(config)
    print(f"| {entry} | {config.template_side} / {config.search_side} | {numbers['parameters'] / 1e6:.2f} "
          f"| {numbers['search_gflop']:.2f} | {numbers['template_gflop']:.2f} |")


if __name__ == "__main__":
  cli.run(main)
