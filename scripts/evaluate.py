#!/usr/bin/env python3
"""Tracks every sequence of a data set with one or several trackers, scores them and writes a report.

  scripts/evaluate.py --checkpoint runs/student --checkpoint svanstrom --baselines opencv \
      --format antiuav --root DATA/val --out runs/val

Writes <tracker>/results/<sequence>.json and <tracker>/metrics.json for each, and report.html (one self-contained
page), its pictures, CSV and LaTeX tables. The same command goes on where it was stopped. Several hosts share the
sequences: the same command on each, with --distributed or --coordinator as for scripts/train.py, and an --out that all
see.
"""

import os

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from siamdff_jax import cli
from siamdff_jax.evaluation.protocols import PROTOCOLS
from siamdff_jax.evaluation.starts import RUNS

_OF = cli.define_trackers()
_BASELINES = flags.DEFINE_list("baselines", [], "OpenCV's trackers to run too: opencv (all), or KCF, CSRT, ...")
_PROTOCOL = flags.DEFINE_enum("protocol", None, list(PROTOCOLS), "How to score; the default is the format's own, and "
                              "vot for --run reset.")
_RUN = flags.DEFINE_enum("run", "ope", RUNS, "ope: once from the true first box. sre: from twelve moved first boxes. "
                         "reset: started anew from the truth after each failure.")
_STREAMS = flags.DEFINE_integer("streams", 8, "Sequences tracked in lockstep, per host.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", 6, "Of how many of the worst sequences the report shows clips.", lower_bound=0)
_VIDEOS = flags.DEFINE_integer("videos", 0, "Annotated videos of whole sequences to write, of the first by name.",
                               lower_bound=0)
_REDO = flags.DEFINE_bool("redo", False, "Replace what --out holds of other weights, another kind of run or other "
                          "data.")
cli.define_processes()


def main(_: list[str]) -> None:
  from siamdff_jax.evaluation import evaluate, trackers
  from siamdff_jax.evaluation.usable import Usable
  from siamdff_jax.parallel import distributed
  from siamdff_jax.tracking.runner import one_device_per_core

  one_device_per_core()
  cli.join_processes()

  out = _OF.out.value
  sources = trackers.named(_OF.checkpoint.value, _BASELINES.value)
  work = evaluate.Evaluation(sources, Usable(_OF.format.value, _OF.root.value, _OF.only.value), out, _RUN.value)
  evaluate.track(work, streams=_STREAMS.value, settings=_OF.tracker.value, redo=_REDO.value)
  if distributed.is_lead():
    print(evaluate.conclude(work, protocol=_PROTOCOL.value or "", clips=_CLIPS.value, videos=_VIDEOS.value))
    print(f"look at {os.path.join(out, 'report.html')}; results and metrics.json of each tracker in {out}/<tracker>")
  work.usable.finish()


if __name__ == "__main__":
  cli.run(main)
