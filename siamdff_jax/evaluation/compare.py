"""Several trackers' result files side by side: what `scripts/compare.py` does."""

import logging
import os
from collections.abc import Mapping
from collections.abc import Sequence as Ordered

from tqdm import tqdm

from input_pipeline import datasets, files
from input_pipeline.errors import UserError
from siamdff_jax.evaluation import comparison, pairing, report
from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.usable import Usable
from siamdff_jax.results import Result

log = logging.getLogger(__name__)


def compare(format: str, root: str, protocol: str, entries: Ordered[str], out: str, *, box_form: str = "xywh",
            origin: int | None = None, clips: int = report.WORST) -> str:
  """Reads and scores all, writes the report (see `write`), prints the tables and returns them.

  A sequence whose labels cannot be read is left out and named.

  Args:
    format, root: the data set, see `datasets.load`; annotations are enough, then there are no clips.
    protocol: a name of `protocols.PROTOCOLS`.
    entries: "NAME=FOLDER" each, in the order of the table's rows; see `results.read_folder` for what a folder may hold.
      Further folders of one name are further runs of it, e.g. of trainings that differ in the seed alone; trackers
      with the same seeds are compared seed by seed (see `pairing.read`).
    out: the folder to write to.
    box_form, origin: of text files, see `results.read_folder`.
    clips: of how many of the worst sequences to show clips; the page shows `report.WORST` of them.

  Raises:
    UserError: an entry of another form, one folder twice, or anything wrong with the results; and when everything is
      written, that sequences were left out.
  """
  folders: dict[str, list[str]] = {}
  for entry in entries:
    name, _, folder = entry.partition("=")
    of_one = folders.setdefault(name, [])
    if not name or not folder or os.path.realpath(folder) in map(os.path.realpath, of_one) or "/" in name:
      raise UserError(f"--results: {entry!r}, expected NAME=FOLDER, and another folder for another run of NAME")
    of_one.append(folder)
  files.make_folder(out)
  usable = Usable(format, root, frames=False)
  sequences = usable.sequences
  trackers = {name: pairing.read(of_one, sequences, format, box_form, origin)
              for name, of_one in tqdm(folders.items(), desc="reading results", unit="tracker", delay=3)}
  compared = comparison.compare(protocol, sequences, trackers, usable.left_out)
  write(compared, trackers, out, clips=clips, format=format, root=root)
  text = report.format_summary(compared)
  print(f"{text}\nlook at {os.path.join(out, 'report.html')}")
  usable.finish()
  return text


def write(compared: Comparison, trackers: Mapping[str, Ordered[Mapping[str, Result]]], out: str, *, clips: int,
          format: str, root: str) -> None:
  """Writes the report of a comparison, with clips of the worst sequences as far as their frames can be read.

  Args:
    compared: what is shown.
    trackers: the results that were compared, by tracker those of each run.
    out, clips, format, root: as of `compare`.
  """
  drawn: dict[str, report.Clip] = {}
  failed: dict[str, UserError] = {}
  for name in report.worst_sequences(compared, clips):
    try:
      with_frames = datasets.load(format, root, only=[name])
      drawn |= report.make_clips(compared, with_frames, {tracker: runs[0] for tracker, runs in trackers.items()})
    except UserError as error:
      failed[name] = error
  if failed:
    log.warning("no clips in the report of %s: %s", ", ".join(failed), next(iter(failed.values())))
  report.write(compared, out, data=f"{os.path.basename(os.path.normpath(root))} ({format})", clips=drawn)
