#!/usr/bin/env python3
"""Compares trackers by their result files: report.html (one self-contained page), pictures, CSV and LaTeX tables.

  scripts/compare.py --format antiuav --root DATA/val --protocol antiuav --out runs/compared \
      --results ours=runs/val/student CSRT=runs/val/CSRT

Needs annotations only; where there are frames too, the page shows clips of the worst sequences. A results folder
holds <sequence>.txt or .json, is laid out as the got10k or pysot toolkit does it, or is a tracker's folder of
evaluate.py --out. Further folders of one name are further runs, for example of trainings that differ in the seed
alone: scores are their means, and differences have an interval over them too, seed by seed where the same seeds are
known of both (from evaluate.py's run.json, or folders called seed_<n>). Boxes in text files are taken in the
coordinates of the label files (1-based where those are), in .json files they are 0-based.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline import datasets
from siamdff_jax import cli, results
from siamdff_jax.evaluation import compare
from siamdff_jax.evaluation.protocols import PROTOCOLS

_FORMAT = flags.DEFINE_enum("format", None, list(datasets.FORMATS), "The labels' format.", required=True)
_ROOT = flags.DEFINE_string("root", None, "The data set's folder.", required=True)
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "Whose rules to score by.", required=True)
_RESULTS = flags.DEFINE_list("results", None, "NAME=FOLDER, more of them after it (or after commas), in the order of "
                             "the table's rows. A NAME again: another run of it.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for report.html and the other files.", required=True)
_BOXES = flags.DEFINE_enum("boxes", "xywh", results.BOX_FORMS, "What the four numbers in text files are.")
_ORIGIN = flags.DEFINE_integer("origin", None, "What text files call the first pixel, 0 or 1; the default is the label "
                               "files' own.", lower_bound=0, upper_bound=1)
_CLIPS = flags.DEFINE_integer("clips", 6, "Of how many of the worst sequences to show clips.", lower_bound=0)


def main(argv: list[str]) -> None:
  compare.compare(_FORMAT.value, _ROOT.value, _PROTOCOL.value, [*_RESULTS.value, *argv[1:]], _OUT.value,
                  box_form=_BOXES.value, origin=_ORIGIN.value, clips=_CLIPS.value)


if __name__ == "__main__":
  cli.run(main, more=True)
