"""Trackers on a data set: tracked, scored, shown and filmed, each a step of `scripts/evaluate.py`."""

import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from typing import NamedTuple

import jax
from tqdm import tqdm

from input_pipeline.errors import UserError
from siamdff_jax.evaluation import compare, comparison, pairing, protocols, report, running, trackers
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.usable import Usable
from siamdff_jax.parallel import distributed
from siamdff_jax.tracking import video


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Which trackers are evaluated, on what, how, and where the results lie.

  Attributes:
    trackers: {name: checkpoint or baseline}, see `trackers.named`.
    usable: the sequences; what breaks while it is tracked is left out of it.
    out: gets a folder for each tracker and the report.
    run: a name of `starts.RUNS`.
  """

  trackers: Mapping[str, str]
  usable: Usable
  out: str
  run: str = "ope"

  def folder(self, tracker: str) -> str:
    """Of a tracker's results, metrics.json and videos."""
    return os.path.join(self.out, tracker)


class Scored(NamedTuple):
  """What the results say.

  Attributes:
    comparison: of all trackers.
    results: of each one.
    fps: frames per second of each one; None where it is not known.
  """

  comparison: Comparison
  results: dict[str, pairing.Runs]
  fps: dict[str, float | None]


def track(work: Evaluation, *, streams: int = 8, settings: Ordered[str] = (), redo: bool = False) -> None:
  """Tracks every sequence with every tracker; goes on where an earlier run stopped.

  A sequence that cannot be tracked to its end is left out for all trackers and named. Several processes
  (`distributed.start`) share the sequences; all of them end this step together.

  Args:
    work: what is evaluated.
    streams: sequences tracked in lockstep.
    settings: of the checkpoints' trackers, see `configured.parse`.
    redo: replace results that are of another tracker, kind of run or data; else they are an error.

  Raises:
    UserError: anything the user gave that does not work, or no sequence is left.
  """
  share = (jax.process_index(), jax.process_count())
  for name, source in work.trackers.items():
    tracker, digest = trackers.runner(source, work.run, streams, settings)
    with distributed.lead_first():
      running.prepare(work.folder(name), tracker=digest, run=work.run, redo=redo, seed=trackers.seed(source))
    running.track_usable(tracker, work.usable, work.usable.loaded, work.folder(name), run=work.run, share=share,
                         redo=redo)
  distributed.wait_for_all("evaluated")
  if distributed.is_lead() and share[1] > 1:
    work.usable.leave_out({missing: UserError(f"{missing}: broken in another process, which says how")
                           for name in work.trackers
                           for missing in running.untracked(work.usable.sequences, work.folder(name), run=work.run)})


def conclude(work: Evaluation, *, protocol: str = "", clips: int = report.WORST, videos: int = 0) -> str:
  """Scores what was tracked, writes report and videos, and returns the tables to print; for one process alone.

  Args:
    work: what was tracked.
    protocol: see `score`.
    clips: see `write`.
    videos: of how many sequences, see `write_videos`.
  """
  scored = score(work, protocol)
  write(work, scored, clips)
  write_videos(work, scored, videos)
  return summary(scored)


def score(work: Evaluation, protocol: str = "") -> Scored:
  """Scores what lies in the trackers' folders.

  Args:
    work: what was tracked.
    protocol: a name of `protocols.PROTOCOLS`; empty: the format's own, or "vot" for reset-based runs.
  """
  usable, names = work.usable, list(work.trackers)
  protocol = protocol or ("vot" if work.run == "reset" else protocols.of_format(usable.format))
  found = {name: pairing.read([work.folder(name)], usable.sequences) for name in names}
  compared = comparison.compare(protocol, usable.sequences, found, usable.left_out)
  return Scored(compared, found, {name: running.frames_per_second(work.folder(name)) for name in names})


def write(work: Evaluation, scored: Scored, clips: int = report.WORST) -> None:
  """Writes the report (see `compare.write`, also for `clips`) and each tracker's metrics.json."""
  compare.write(scored.comparison, scored.results, work.out, clips=clips, format=work.usable.format,
                root=work.usable.root)
  for name, fps in scored.fps.items():
    metrics = report.metrics(scored.comparison, name) | ({"fps": fps} if fps else {})
    report.write_metrics(os.path.join(work.folder(name), running.METRICS), metrics)


def write_videos(work: Evaluation, scored: Scored, count: int) -> None:
  """Writes a video of each of the first `count` sequences, and a picture of six frames, to each tracker's `videos`."""
  sequences = work.usable.sequences[:count]
  if not sequences:
    return
  for name, runs in scored.results.items():
    folder = os.path.join(work.folder(name), running.VIDEOS)
    os.makedirs(folder, exist_ok=True)
    for sequence in tqdm(sequences, desc="videos", unit="video"):
      assert sequence.frames is not None
      path, result = os.path.join(folder, sequence.name), runs[0][sequence.name]
      video.write(f"{path}.mp4", sequence.frames, result, sequence.frames.times(), sequence.boxes)
      video.write_strip(f"{path}.png", sequence.frames, result, sequence.boxes)


def summary(scored: Scored) -> str:
  """The tables, with each tracker's frames per second, and how far its runs are apart."""
  compared = scored.comparison
  lines = [report.format_summary(compared, {"fps": scored.fps})]
  for name in compared.trackers:
    if values := compared.runs(name):
      lines.append(f"{name}: {len(values)} runs, {compared.main} from {min(values):.3f} to {max(values):.3f}")
  return "\n".join(lines)
