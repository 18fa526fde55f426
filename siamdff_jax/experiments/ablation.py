"""What each part of the method is worth: variants of one experiment, trained alike and compared with one another."""

import json
import logging
import os
from collections.abc import Sequence as Ordered
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from input_pipeline import datasets, files
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.config_check.commands import check_ablation, check_variant
from siamdff_jax.evaluation import compare, comparison, pairing, protocols, running, trackers
from siamdff_jax.evaluation.report import tables
from siamdff_jax.models.summary import summarize
from siamdff_jax.parallel import distributed
from siamdff_jax.training import same_run
from siamdff_jax.training.logging import read_metrics
from siamdff_jax.training.loop import train

TABLE_FILE = "ablation.md"
log = logging.getLogger(__name__)


class Variant(NamedTuple):
  """One network to train.

  Attributes:
    name: in the tables.
    of: the variant it is compared with; "" for the first one.
    config: of its training.
  """

  name: str
  of: str
  config: ml_collections.ConfigDict

  @property
  def folder(self) -> str:
    """Of a training with this seed, below the ablation's."""
    return os.path.join(self.name, f"seed_{self.config.seed}")

  def with_seed(self, seed: int) -> "Variant":
    """The same to train with another seed."""
    config = self.config.copy_and_resolve_references()
    config.seed = seed
    return self._replace(config=config)


class Data(NamedTuple):
  """Labelled data: the name in the tables, format and folder as of `datasets.load`, and the sequences."""

  name: str
  format: str
  root: str
  sequences: list[Sequence]

  @property
  def protocol(self) -> str:
    """By which it is scored: the format's own."""
    return protocols.of_format(self.format)


def ablate(config: ml_collections.ConfigDict, workdir: str, data: Ordered[str]) -> str:
  """Trains every variant, tracks all data with it, and writes the table so far; goes on where an earlier run stopped.

  Args:
    config: see configs/ablation.py.
    workdir: gets <variant>/seed_<n>/ (training workdirs), evaluation/<data>/<variant>/seed_<n>/ (results),
      evaluation/<data>/report.html, and TABLE_FILE.
    data: "NAME=FORMAT:ROOT" each.

  Returns:
    The table, or a sentence if the training was stopped by a signal.

  Raises:
    UserError: anything the user gave that does not work, or a folder of another ablation.
  """
  check_ablation(config)
  variants, sets = _variants(config), [_data(entry) for entry in data]
  names = [data_set.name for data_set in sets]
  for name in names:
    if names.count(name) > 1:
      raise UserError(f"--data: two data sets are called {name}, expected a name of its own for each")
  # All variants with the first seed, then with the next: the table is whole early.
  trainings = [variant.with_seed(config.experiment.seed + n) for n in range(config.trainings) for variant in variants]
  for training in trainings:
    _require_same(training, os.path.join(workdir, training.folder))
  for number, training in enumerate(trainings, 1):
    log.info("%s: training %d of %d", training.folder, number, len(trainings))
    state = train(training.config, os.path.join(workdir, training.folder))
    if int(state.step) < training.config.train.steps or distributed.StopSignal.was_asked():
      return f"{training.folder}: stopped at step {int(state.step)}; the same command goes on from there"
    jax.clear_caches()  # Each training compiles its own step; without this they pile up.
    for data_set in sets:
      _track(training, data_set, workdir)
    text = _write_table(workdir, trainings[:number], sets)
  for data_set in sets:
    found = _results(workdir, trainings, data_set)
    compare.write(comparison.compare(data_set.protocol, data_set.sequences, found), found, _folder(workdir, data_set),
                  clips=0, format=data_set.format, root=data_set.root)
  return text


def _variants(config: ml_collections.ConfigDict) -> list[Variant]:
  """The variants in the config's order; without a teacher only those that need none."""
  found: dict[str, Variant] = {}
  skipped = []
  for entry in config.variants:
    of = entry["of"]
    made = (found[of].config if of else config.experiment).copy_and_resolve_references()
    made.update(entry["changes"])
    check_variant(entry["name"], made)
    made.teacher.checkpoint = config.experiment.teacher.checkpoint if made.distiller.kind != "none" else ""
    if made.distiller.kind != "none" and not made.teacher.checkpoint:
      skipped.append(entry["name"])
    else:
      found[entry["name"]] = Variant(entry["name"], of, made)
  if skipped:
    log.warning("%s left out: they need a teacher, set --config.experiment.teacher.checkpoint", ", ".join(skipped))
  return list(found.values())


def _data(entry: str) -> Data:
  name, _, place = entry.partition("=")
  format, _, root = place.partition(":")
  if not name or name != os.path.basename(name) or format not in datasets.FORMATS or not root:
    raise UserError(f"--data {entry!r}, expected NAME=FORMAT:ROOT with a format of {', '.join(datasets.FORMATS)}")
  return Data(name, format, root, datasets.load(format, root))


def _require_same(variant: Variant, folder: str) -> None:
  """Raises a UserError if the folder holds a training with another config: a table of unequal trainings misleads."""
  path = os.path.join(folder, "config.json")
  if not os.path.exists(path):
    return
  try:
    with open(path) as file:
      theirs = json.load(file)
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error})") from error
  # Where data and teacher lie may differ; whether they are the same is found out where they are read.
  changes = [change for change in same_run.differences(theirs, same_run.plain(variant.config))
             if not change[0].endswith((".root", ".format", "teacher.checkpoint"))]
  if changes:
    key, old, new = changes[0]
    raise UserError(f"{path}: this training was started with {key} {old!r}, now it is {new!r}; choose another "
                    "--workdir")


def _folder(workdir: str, data: Data) -> str:
  return os.path.join(workdir, "evaluation", data.name)


def _track(variant: Variant, data: Data, workdir: str) -> None:
  """Writes the variant's result files on the data, where they are not there yet."""
  runner, digest = trackers.runner(os.path.join(workdir, variant.folder))
  out = os.path.join(_folder(workdir, data), variant.folder)
  # Other weights: those of checkpoints that were removed.
  running.prepare(out, tracker=digest, run="ope", redo=True, seed=variant.config.seed)
  running.track(runner, data.sequences, out, run="ope")


def _results(workdir: str, trainings: Ordered[Variant], data: Data) -> dict[str, pairing.Runs]:
  """By variant, a run of each training."""
  folders: dict[str, list[str]] = {}
  for one in trainings:
    folders.setdefault(one.name, []).append(os.path.join(_folder(workdir, data), one.folder))
  return {name: pairing.read(of_one, data.sequences) for name, of_one in folders.items()}


def _write_table(workdir: str, trainings: Ordered[Variant], sets: Ordered[Data]) -> str:
  """Of the trainings so far."""
  parts = []
  for one in sets:
    compared = comparison.compare(one.protocol, one.sequences, _results(workdir, trainings, one))
    parts.append(f"{one.name}: {len(one.sequences)} sequences, protocol {one.protocol}\n\n"
                 f"{tables.format_gains(compared, {v.name: v.of for v in trainings}, 'variant')}")
  first = [v for v in trainings if v.config.seed == trainings[0].config.seed]
  text = "\n\n".join([*parts, f"cost\n\n{_costs(first, workdir)}"])
  files.write_atomically(os.path.join(workdir, TABLE_FILE), f"{text}\n")
  return text


def _costs(variants: Ordered[Variant], workdir: str) -> str:
  """Of tracking as counted by `models.summary`, of training as measured by its log."""
  table = [["variant", "parameters (M)", "search (GFLOP)", "template (GFLOP)", "steps", "pairs/s"]]
  for v in variants:
    numbers = summarize(v.config.model)
    lines = read_metrics(os.path.join(workdir, v.folder))
    rates = [line["pairs_per_second"] for line in lines if "pairs_per_second" in line]
    table.append([v.name, f"{numbers['parameters'] / 1e6:.3f}", f"{numbers['search_gflop']:.3f}",
                  f"{numbers['template_gflop']:.3f}", str(v.config.train.steps), f"{np.median(rates):.1f}"])
  return tables.markdown(table)
