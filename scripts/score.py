#!/usr/bin/env python3
"""Scores anybody's result files against a data set's labels: by sequence, losses and returns, by target size.

No images are needed.

  scripts/score.py --protocol antiuav410 --format antiuav410 --root Anti-UAV410/test --results results/SiamDFF

The results folder holds one file per sequence: <sequence>.json in the Anti-UAV form, {"res": [[x,y,w,h] or [], ...]},
where [] says that the target is absent, or <sequence>.txt with a line x,y,w,h per frame; or it is laid out as the
got10k or pysot toolkit does it. Boxes in text files are taken in the coordinates of the label files (1-based where
those are), those in .json files are 0-based. For several trackers, intervals and pictures see scripts/compare.py.
"""

import os

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli, results
from siamdff_jax.evaluation import comparison, protocols, report

_PROTOCOL = flags.DEFINE_enum("protocol", None, list(protocols.PROTOCOLS), "Whose rules to score by.", required=True)
_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "The labels' format.", required=True)
_ROOT = flags.DEFINE_string("root", None, "The data set's folder.", required=True)
_RESULTS = flags.DEFINE_string("results", None, "The folder with a result file per sequence.", required=True)
_BOXES = flags.DEFINE_enum("boxes", "xywh", results.BOX_FORMS, "What the four numbers in text files are.")
_ORIGIN = flags.DEFINE_integer("origin", None, "What text files call the first pixel, 0 or 1; the default is the label "
                               "files' own.", lower_bound=0, upper_bound=1)
_OUT = flags.DEFINE_string("out", None, "Where to write the metrics as JSON (optional).")


def main(_: list[str]) -> None:
  sequences = datasets.load(_FORMAT.value, _ROOT.value, frames=False)
  runs = results.read_folder(_RESULTS.value, sequences, _FORMAT.value, _BOXES.value, _ORIGIN.value)
  name = os.path.basename(os.path.normpath(_RESULTS.value))
  compared = comparison.compare(_PROTOCOL.value, sequences, {name: runs})
  scores = report.metrics(compared, name)
  print(report.format_table({**scores["sequences"], "OVERALL": scores}, title="sequence"))
  if parts := report.format_parts(compared):
    print(f"\n{parts}")
  official = ", ".join(f"{key} {scores['overall'][key]:.4f}" for key in protocols.PROTOCOLS[_PROTOCOL.value].official)
  print(f"\n{len(sequences)} sequences, protocol {_PROTOCOL.value}; its official numbers: {official}")
  if _OUT.value:
    report.write_metrics(_OUT.value, scores)
    print(f"written to {_OUT.value}")


if __name__ == "__main__":
  cli.run(main)
