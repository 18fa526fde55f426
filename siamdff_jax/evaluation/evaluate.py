"""Runs trackers over labelled sequences, scores them and compares them: what `scripts/evaluate.py` does."""

import hashlib
import os
from collections.abc import Sequence as Ordered

import cv2
import jax
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.evaluation import compare, pairing, protocols, report, running
from siamdff_jax.evaluation.usable import Usable
from siamdff_jax.parallel import distributed
from siamdff_jax.tracking import video
from siamdff_jax.tracking.baselines import BASELINES, BaselineRunner
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.runner import Runner

ALL_BASELINES = "opencv"


def evaluate(checkpoints: Ordered[str], baselines: Ordered[str], format: str, root: str, out: str, *,
             protocol: str = "", run: str = "ope", settings: Ordered[str] = (), only: str = "", streams: int = 8,
             clips: int = report.WORST, videos: int = 0, redo: bool = False):
  """Tracks every sequence with every tracker, then writes the comparison; goes on where an earlier run stopped.

  A sequence that cannot be loaded, or not be tracked to its end, is left out for all trackers and named. Several
  processes (`distributed.start`) share the sequences; the first one compares.

  Args:
    checkpoints: see `trained.find`, each with or without "NAME=" in front.
    baselines: names of `baselines.BASELINES`, or "opencv" for all of them.
    format, root: the data set, see `datasets.load`.
    out: gets a folder for each tracker (`running.track`), with metrics.json, and the report (`compare.write`).
    protocol: a name of `protocols.PROTOCOLS`; empty: the format's own, or "vot" for reset-based runs.
    run: a name of `running.RUNS`.
    settings: of the checkpoints' trackers, see `configured.parse`.
    only: keep only the sequences whose name contains this.
    streams: sequences tracked in lockstep.
    clips: of how many of the worst sequences the report shows clips.
    videos: how many annotated videos (and pictures of six frames) of each tracker to write to its folder `videos`.
    redo: replace results in `out` that are of another tracker, kind of run or data; else they are an error.

  Raises:
    UserError: anything the user gave that does not work; and when everything is written, that sequences were left out.
  """
  protocol = protocol or ("vot" if run == "reset" else protocols.of_format(format))
  trackers = named(checkpoints, baselines)
  usable = Usable(format, root, only)
  share = (jax.process_index(), jax.process_count())
  for name, source in trackers.items():
    tracker, digest = runner(source, run, streams, settings)
    with distributed.lead_first():
      running.prepare(os.path.join(out, name), tracker=digest, run=run, redo=redo, seed=seed(source))
    usable.track(tracker, usable.loaded, os.path.join(out, name), run=run, share=share, redo=redo)
  distributed.wait_for_all("evaluated")
  if distributed.is_lead():
    folders = {name: os.path.join(out, name) for name in trackers}
    if share[1] > 1:
      usable.leave_out({missing: UserError(f"{missing}: broken in another process, which says how")
                        for folder in folders.values()
                        for missing in running.untracked(usable.sequences, folder, run=run)})
    _compare(protocol, usable, folders, out, clips=clips, videos=videos, format=format, root=root)
  usable.finish()


def _compare(protocol, usable, folders, out, *, clips, videos, format, root):
  """Scores what lies in {tracker: folder}, and writes and prints the comparison."""
  sequences = usable.sequences
  found = {name: pairing.read([folder], sequences) for name, folder in folders.items()}
  compared = compare.write(protocol, sequences, found, out, clips=clips, format=format, root=root,
                           left_out=usable.left_out)
  rates = {name: running.frames_per_second(folder) for name, folder in folders.items()}
  for name, folder in folders.items():
    metrics = report.metrics(compared, name) | ({"fps": rates[name]} if rates[name] else {})
    report.write_metrics(os.path.join(folder, running.METRICS), metrics)
    _write_videos(os.path.join(folder, running.VIDEOS), sequences[:videos], found[name][0])
  print(report.format_summary(compared, {"fps": rates}))
  for name in folders:
    if values := compared.runs(name):
      print(f"{name}: {len(values)} runs, {compared.main} from {min(values):.3f} to {max(values):.3f}")
  print(f"look at {os.path.join(out, 'report.html')}; results and metrics.json of each tracker in {out}/<tracker>")


def named(checkpoints: Ordered[str], baselines: Ordered[str]) -> dict[str, str]:
  """{tracker's name: checkpoint or baseline}, in the order given.

  Raises:
    UserError: an unknown baseline, two of one name, another form, or nothing at all.
  """
  wanted = [name for entry in baselines for name in (BASELINES if entry == ALL_BASELINES else [entry])]
  unknown = [name for name in wanted if name not in BASELINES]
  if unknown:
    raise UserError(f"--baselines: {unknown[0]!r}, expected {ALL_BASELINES} or some of {', '.join(BASELINES)}")
  trackers = {}
  for entry in [*checkpoints, *wanted]:
    name, source = _name_and_source(entry)
    if name in trackers:
      raise UserError(f"two trackers are called {name}, name them: --checkpoint NAME={source}")
    trackers[name] = source
  if not trackers:
    raise UserError("no tracker to evaluate, expected --checkpoint or --baselines")
  return trackers


def trainings(checkpoints: Ordered[str]) -> dict[str, list[str]]:
  """{name: checkpoints}, in the order given: NAME=CHECKPOINT again is another training of what is called NAME.

  Raises:
    UserError: two of one name that do not say it, one checkpoint twice, another form, or nothing at all.
  """
  found = {}
  for entry in checkpoints:
    name, source = _name_and_source(entry)
    of_one = found.setdefault(name, [])
    if (of_one and "=" not in entry) or source in of_one:
      raise UserError(f"--checkpoint {entry!r}: there is one called {name} already; another training of the same is "
                      "NAME=CHECKPOINT with another checkpoint")
    of_one.append(source)
  if not found:
    raise UserError("no network to look at, expected --checkpoint")
  return found


def _name_and_source(entry: str) -> tuple[str, str]:
  name, equals, source = entry.partition("=")
  if not equals:
    name, source = os.path.basename(os.path.normpath(entry)), entry
  if not name or name != os.path.basename(name) or not source:
    raise UserError(f"--checkpoint {entry!r}, expected CHECKPOINT or NAME=CHECKPOINT")
  return name, source


def runner(source: str, run: str = "ope", streams: int = 8,
           settings: Ordered[str] = ()) -> tuple[running.RunsStreams, str]:
  """The tracker of a checkpoint (see `trained.find`) or a baseline, and what tells it from others.

  Args:
    source: checkpoint, or a name of `baselines.BASELINES`.
    run, streams, settings: see `evaluate`.
  """
  if source in BASELINES:
    return BaselineRunner(source, reset=run == "reset"), f"OpenCV {cv2.__version__} {source}"
  tracker, variables = load_tracker(source, settings)
  digest = hashlib.sha256(repr((tracker.model, tracker.settings)).encode())
  for leaf in jax.tree.leaves(variables):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return Runner(tracker, variables, streams=streams, reset=run == "reset"), digest.hexdigest()


def seed(source: str) -> int | None:
  """Of the training of a checkpoint; None of what has none, as baselines."""
  try:
    return trained.load_config(source).get("seed")
  except UserError:
    return None


def _write_videos(folder, sequences, found):
  if sequences:
    os.makedirs(folder, exist_ok=True)
  for sequence in tqdm(sequences, desc="videos", unit="video", disable=not sequences):
    path = os.path.join(folder, sequence.name)
    video.write(f"{path}.mp4", sequence.frames, found[sequence.name], sequence.frames.times(), sequence.boxes)
    video.write_strip(f"{path}.png", sequence.frames, found[sequence.name], sequence.boxes)
