"""The trackers that a user names, networks and OpenCV's: their names, how to run them, and what tells them apart."""

import hashlib
import os
from collections.abc import Sequence as Ordered

import cv2
import jax
import numpy as np

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import trained
from siamdff_jax.evaluation.running import RunsStreams
from siamdff_jax.tracking.baselines import BASELINES, BaselineRunner
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.runner import Runner

ALL_BASELINES = "opencv"


def named(checkpoints: Ordered[str], baselines: Ordered[str]) -> dict[str, str]:
  """{tracker's name: checkpoint or baseline}, in the order given.

  Args:
    checkpoints: see `trained.find`, each with or without "NAME=" in front.
    baselines: names of `baselines.BASELINES`, or "opencv" for all of them.

  Raises:
    UserError: an unknown baseline, two of one name, another form, or nothing at all.
  """
  wanted = [name for entry in baselines for name in (BASELINES if entry == ALL_BASELINES else [entry])]
  unknown = [name for name in wanted if name not in BASELINES]
  if unknown:
    raise UserError(f"--baselines: {unknown[0]!r}, expected {ALL_BASELINES} or some of {', '.join(BASELINES)}")
  found: dict[str, str] = {}
  for entry in [*checkpoints, *wanted]:
    name, source = _name_and_source(entry)
    if name in found:
      raise UserError(f"two trackers are called {name}, name them: --checkpoint NAME={source}")
    found[name] = source
  if not found:
    raise UserError("no tracker to evaluate, expected --checkpoint or --baselines")
  return found


def trainings(checkpoints: Ordered[str]) -> dict[str, list[str]]:
  """{name: checkpoints}, in the order given: NAME=CHECKPOINT again is another training of what is called NAME.

  Raises:
    UserError: two of one name that do not say it, one checkpoint twice, another form, or nothing at all.
  """
  found: dict[str, list[str]] = {}
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


def runner(source: str, run: str = "ope", streams: int = 8, settings: Ordered[str] = ()) -> tuple[RunsStreams, str]:
  """The tracker of a checkpoint (see `trained.find`) or a baseline, and what tells it from others.

  Args:
    source: checkpoint, or a name of `baselines.BASELINES`.
    run: a name of `starts.RUNS`.
    streams: how many are tracked in lockstep.
    settings: of a checkpoint's tracker, see `configured.parse`.
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
