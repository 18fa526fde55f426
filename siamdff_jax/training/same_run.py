"""What a workdir was trained with, against what it is to go on with: the config, the data, the teacher."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from configs import base
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence as LabelledSequence
from siamdff_jax.checkpoints import trained
from siamdff_jax.tracking import configured
from siamdff_jax.training.run_config import CONFIG_FILE

log = logging.getLogger(__name__)

# Of the machine or of looking on: what is learned does not depend on them, but for roundings.
FREE = frozenset({
    "data.workers", "data.records", "data.feed", "data.resident_shards", "evaluation.streams", "layout.kind",
    "layout.fsdp", "model.backbone.remat", "train.log_every", "train.checkpoint_every", "train.max_bad_steps",
    "train.profile_steps"})
# Groups whose keys are the user's: one that is missing was taken out.
_OPEN = ("data.train.", "data.validation.", "distiller.weights.")
_MOST = 12  # Differences in one sentence.


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], free: Collection[str] = FREE
                ) -> list[tuple[str, Any, Any]]:
  """What differs between an earlier config and this one.

  Args:
    theirs, ours: nested dicts as of `plain`. A key that the earlier one lacks had its default of configs/base.py; one
      that only the earlier one has, and configs/base.py has no more, is passed over.
    free: keys that may differ; by default what does not change what is learned.

  Returns:
    (key like "train.steps", old value, new value) in the order of the keys; None stands for a key that is not there.
  """
  defaults = _leaves(plain(base.get_config()))
  theirs, ours = (defaults | _leaves(_with_present_tracker(config)) for config in (theirs, ours))
  keys = sorted(ours.keys() | {key for key in theirs if key.startswith(_OPEN)})
  return [(key, theirs.get(key), ours.get(key)) for key in keys
          if key not in free and theirs.get(key) != ours.get(key)]


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """A config as it comes back from a file."""
  return json.loads(config.to_json_best_effort())


def _with_present_tracker(config: Mapping[str, Any]) -> Mapping[str, Any]:
  """With the tracker's settings as this version has them: version 0.1.0 had other names for the same."""
  if not isinstance(config.get("tracker"), Mapping):
    return config
  return {**config, "tracker": configured.of_config(config["tracker"])[0].to_dict()}


def _leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
  """{"a.b": value} of nested dicts."""
  found: dict[str, Any] = {}
  for key, value in tree.items():
    found |= _leaves(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
  return found


def describe(data: Mapping[str, Any], teacher_variables: Any = None) -> dict[str, dict[str, Any]]:
  """What tells a training's inputs from others, wherever they lie, raw or packed.

  Args:
    data: {name in the config, like "data.train": what has the `sequences` of it, or None}.
    teacher_variables: a tree of arrays, or None.

  Returns:
    {name: numbers and a digest of the labels or weights} of those that there are.
  """
  found = {name: _of_sequences(one.sequences) for name, one in data.items() if one is not None}
  return found | ({"teacher": _of_weights(teacher_variables)} if teacher_variables is not None else {})


def _of_sequences(sequences: Sequence[LabelledSequence]) -> dict[str, Any]:
  digest = hashlib.sha256()
  for one in sequences:
    digest.update(f"{len(one)} ".encode() + np.ascontiguousarray(one.boxes).tobytes())
    digest.update(np.ascontiguousarray(one.lookalikes).tobytes())
  return {"sequences": len(sequences), "frames": sum(map(len, sequences)), "labels": digest.hexdigest()[:16]}


def _of_weights(variables: Any) -> dict[str, str]:
  digest = hashlib.sha256()
  for path, x in jax.tree_util.tree_leaves_with_path(variables):
    digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(x).tobytes())
  return {"weights": digest.hexdigest()[:16]}


def require(workdir: str, config: ml_collections.ConfigDict, inputs: Mapping[str, Mapping],
            allow_changes: bool = False) -> None:
  """Refuses to go on in a workdir that was trained with something else; one without a checkpoint is anybody's.

  Args:
    workdir: of the training.
    config: to go on with.
    inputs: of `describe`. Their places may differ as long as they do not; of older checkpoints only the places are
      known.
    allow_changes: says the differences and goes on.

  Raises:
    UserError: something differs; the sentence lists it.
  """
  found = trained.newest_origin(workdir)
  if found is None:
    if (epath.Path(workdir) / CONFIG_FILE).exists():
      log.info("%s: was used before, but holds no checkpoint; from the beginning", workdir)
    return
  step, theirs, known = found
  same = {name for name, what in inputs.items() if known.get(name) == what}
  changes = [change for change in differences(plain(theirs), plain(config)) if not _is_place(change[0], same)]
  contents = [f"the content of {name} ({_text(known[name])} -> {_text(what)})" for name, what in inputs.items()
              if name in known and name not in same]
  if not changes and not contents:
    return
  text = "; ".join(([listed(changes)] if changes else []) + contents)
  if not allow_changes:
    raise UserError(f"{workdir}: was trained up to step {step} with something else: {text}; choose another --workdir, "
                    "or go on from there with the new values by scripts/train.py --allow_changes")
  log.warning("%s: other values than those of its checkpoint of step %d: %s", workdir, step, text)


def listed(changes: Sequence[tuple[str, Any, Any]], prefix: str = "") -> str:
  """Differences as flags with their old and new values."""
  shown = [f"--config.{prefix}{key} {_shown(old)} -> {_shown(new)}" for key, old, new in changes[:_MOST]]
  return "; ".join(shown + ([f"{len(changes) - _MOST} more"] if len(changes) > _MOST else []))


def _is_place(key: str, same: set[str]) -> bool:
  """Whether a key says where, or packed how, one of the inputs `same` lies."""
  return any(key == f"{name}.checkpoint" or (key.startswith(f"{name}.") and key.endswith((".root", ".format")))
             for name in same)


def _shown(value: Any) -> str:
  return "not set" if value is None else repr(value)


def _text(described: Mapping[str, Any]) -> str:
  return ", ".join(f"{name} {value}" for name, value in described.items())
