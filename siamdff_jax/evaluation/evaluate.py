"""Runs trackers over labelled sequences and scores them."""

import math
import os
from typing import Protocol

import numpy as np
from tqdm import tqdm

from input_pipeline import datasets
from input_pipeline.errors import DataError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import report, results
from siamdff_jax.evaluation.protocols import Scores, evaluate


class RunsStreams(Protocol):
  """A tracker that follows streams: `tracking.runner.Runner` or `tracking.baselines.BaselineRunner`."""

  fps: float

  def run(self, streams):
    """Yields (name, Result)."""


def run_and_score(runner: RunsStreams, sequences: list[Sequence], protocol: str, out: str) -> Scores:
  """Tracks every sequence from its first box and scores the results.

  Args:
    runner: the tracker.
    sequences: with frames; the target must be visible in every first frame.
    protocol: a name of `protocols.PROTOCOLS`.
    out: folder that gets results/<sequence>.json, metrics.json and curves.png.

  Raises:
    DataError: an absent first frame, unreadable frames, or an unwritable folder.
  """
  from siamdff_jax.tracking.runner import Stream  # Here, so that scoring result files needs no JAX.

  for sequence in sequences:
    if not sequence.visible[0]:
      raise DataError(f"{sequence.name}: the target is absent in the first frame, expected a box to start from")
  streams = [Stream(s.name, s.frames, np.asarray(s.boxes[0], np.float64)) for s in sequences]
  folder = os.path.join(out, "results")
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise DataError(f"{folder}: cannot be written ({error.strerror or error})") from error
  first_boxes = {s.name: s.box for s in streams}
  tracked = {}
  for name, result in runner.run(streams):
    results.write(os.path.join(folder, f"{name}.json"), result, init=first_boxes[name])
    tracked[name] = result
  scores = evaluate(protocol, sequences, tracked)
  if math.isfinite(runner.fps):
    scores.metrics["fps"] = runner.fps
  report.write_metrics(os.path.join(out, "metrics.json"), scores.metrics)
  report.plot_curves(os.path.join(out, "curves.png"), {os.path.basename(os.path.normpath(out)): scores.curves})
  return scores


def evaluate_checkpoint(checkpoint: str, format: str, root: str, out: str, *, protocol: str, only: str = "",
                        streams: int = 4, videos: int = 0) -> Scores:
  """What `scripts/evaluate.py` does: `run_and_score` by names, then prints the table.

  Args:
    checkpoint: see `checkpoints.find`, or a name of `baselines.BASELINES`.
    format, root: the data set, see `datasets.load`.
    out: the folder to write to.
    protocol: a name of `protocols.PROTOCOLS`.
    only: keep only the sequences whose name contains this.
    streams: sequences tracked in lockstep.
    videos: how many annotated videos (and pictures of six frames) to write to out/videos, of the first by name.
  """
  from siamdff_jax.models.load import load_tracker
  from siamdff_jax.tracking import video
  from siamdff_jax.tracking.baselines import BASELINES, BaselineRunner
  from siamdff_jax.tracking.runner import Runner

  sequences = [s for s in datasets.load(format, root) if only in s.name]
  if not sequences:
    raise DataError(f"{root}: no sequence has {only!r} in its name")
  if checkpoint in BASELINES:
    runner = BaselineRunner(checkpoint)
  else:
    runner = Runner(*load_tracker(checkpoint), streams=min(streams, len(sequences)))
  scores = run_and_score(runner, sequences, protocol, out)
  if videos:
    os.makedirs(os.path.join(out, "videos"), exist_ok=True)
  for sequence in tqdm(sequences[:videos], desc="videos", unit="video", disable=not videos):
    result = results.read(os.path.join(out, "results", f"{sequence.name}.json"))
    video.write(os.path.join(out, "videos", f"{sequence.name}.mp4"), sequence.frames, result, truth=sequence.boxes)
    video.write_strip(os.path.join(out, "videos", f"{sequence.name}.png"), sequence.frames, result, sequence.boxes)
  row = os.path.basename(os.path.normpath(out))
  print(report.format_table({row: scores.metrics}, {"fps": {row: runner.fps}}))
  print(f"results, metrics.json and curves.png in {out}")
  return scores
