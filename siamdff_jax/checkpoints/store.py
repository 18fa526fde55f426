"""Checkpoints by Orbax: saved in the background, atomic, the best and the last two kept, config and step inside.

What a fault may leave behind is passed over: a start resumes from the newest checkpoint that is whole, and a save that
fails is said and tried again at the next.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import checksums, faults, safetensors
from siamdff_jax.names import did_you_mean

log = logging.getLogger(__name__)
State = TypeVar("State")  # A flax dataclass of arrays with a field `step`: `training.state.TrainState`.

FOLDER = "checkpoints"
_PATIENCE = (0.1, 0.3, 1.0, 3.0)  # Seconds for the writes that a failed save has abandoned.
_UNKNOWN = -1.0  # The quality of a checkpoint that was not validated: worse than any.
_SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "pretrained"


class Checkpoints:
  """The checkpoints of one workdir. Use as a context manager: leaving it waits for the last save.

  Args:
    workdir: a folder, made where it is missing, or a bucket's url (what etils.epath opens).
    keep: how many of the last checkpoints stay, beside the best. Two: when the last turns out to be damaged, there is
      the one before. While saving there are `keep` + 2 on the disk.

  Raises:
    UserError: the folder cannot be made.
  """

  def __init__(self, workdir: str, keep: int = 2):
    self.folder = _location(workdir) / FOLDER
    self._keep = keep
    self._saving: int | None = None  # The step under way.
    self._lost: tuple[int, str] | None = None  # (step, why) of the last save, when it failed.
    self._manager: ocp.CheckpointManager | None = None
    self._quiet = contextlib.ExitStack()
    try:
      self._open()
    except OSError as error:
      raise UserError(f"{self.folder}: cannot be made or read ({error.strerror or error})") from error

  def __enter__(self):
    self._quiet.enter_context(faults.quiet())
    return self

  def __exit__(self, kind, *_):
    try:
      if kind is None:
        self.wait()
      else:
        self._settle()
    finally:
      self._close()
      self._quiet.close()

  @property
  def last_step(self) -> int | None:
    """Of the newest checkpoint, whole or not."""
    return max(_steps(self.folder), default=None)

  @property
  def saving(self) -> bool:
    """Whether a save is under way in the background."""
    return self._manager is not None and self._manager.is_saving_in_progress()

  def save(self, state: State, config: ml_collections.ConfigDict, quality: float | None = None,
           inputs: Mapping[str, Mapping] | None = None):
    """Starts saving `state` under its step; returns when the state may be changed again.

    `quality`: the higher the better; None where it was not measured. `inputs`: for `newest_origin`.

    A save that fails, now or in the background, is a warning: training goes on. `wait` says whether the last arrived.
    """
    step = int(state.step)
    parts = _as_dict(state)
    items = ocp.args.Composite(
        state=ocp.args.PyTreeSave(parts), config=ocp.args.JsonSave(json.loads(config.to_json_best_effort())),
        checksums=ocp.args.JsonSave(checksums.of(_named(parts))), inputs=ocp.args.JsonSave(dict(inputs or {})))
    self._settle()
    why = None
    try:
      if not self._begin(step, metrics={"quality": _comparable(quality)}, args=items):
        return
    except Exception as error:  # Orbax and its storage raise all kinds; whatever it is, training is worth more.
      why = faults.reason(error)
    self._note(step, why)
    self._saving = step if self._lost is None else None

  def _begin(self, step: int, **save) -> bool:
    """Whether a save was started, which it is not where the step is saved already."""
    for patience in (*_PATIENCE, None):
      try:
        self._require_folder()
        if step in self._manager.all_steps():
          return False
        self._manager.save(step, **save)
        return True
      except Exception as error:
        if patience is None or not faults.is_unsettled(error):
          raise
      self._close()
      time.sleep(patience)

  def wait(self):
    """Waits for the last save.

    Raises:
      UserError: it failed; the sentence says up to which step the run is safe.
    """
    self._settle()
    if self._lost:
      step, why = self._lost
      safe = self.last_step
      raise UserError(f"{self.folder}: the last save, of step {step}, failed ({why}); "
                      + ("nothing of this run is saved" if safe is None else f"the run is safe up to step {safe}"))

  def restore(self, state: State) -> State:
    """The newest whole checkpoint, in the shapes, types and placement of `state`; `state` itself when there is none.

    Newer ones that are damaged are named in a warning and renamed. All processes take the same.

    Raises:
      UserError: the checkpoint holds other arrays than this config makes, or several are there and all are damaged.
    """
    damaged = {}
    while (step := faults.from_first(max(set(_steps(self.folder)) - set(damaged), default=-1))) >= 0:
      try:
        restored = _read(self.folder / str(step), state)
        break
      except faults.Damaged as error:
        damaged[step] = str(error)
    else:
      # One is what the fault left of a young run's first save. Several mean that something else is wrong.
      if len(damaged) > 1:
        raise UserError(f"{self.folder}: all of its checkpoints are damaged; the newest: {damaged[max(damaged)]}; "
                        "nothing was changed, move the folder away to start from the beginning")
      restored = state
      if damaged:
        log.warning("%s: no whole checkpoint is left; from the beginning", self.folder)
    if damaged:
      self._close()
      for step, why in damaged.items():
        faults.set_aside(self.folder / str(step), why)
      self._open()
    return restored

  def _open(self):
    """A new Orbax manager on what the folder holds; it removes what an interrupted save left."""
    self._close()
    while unreadable := self._with_unreadable_metrics():  # Orbax's manager would not start.
      faults.set_aside(*unreadable)
    # Best by the quality of the moving average; a checkpoint without one is only ever among the last.
    quality = lambda metrics: metrics.get("quality", metrics.get("iou"))  # "iou": of older checkpoints.
    keep = managers.AnyPreservationPolicy([managers.LatestN(self._keep), managers.BestN(
        get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False)])
    # Folders are made before `save` returns: where that fails in the background, other threads of Orbax may wait for
    # them for five minutes, and the end of the process with them.
    background = ocp.AsyncOptions(create_directories_asynchronously=False)
    # `best_fn` is what makes the manager write the metrics to disk, for `find` and for the run after a restart.
    options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=quality, enable_async_checkpointing=True,
                                           async_options=background, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def _with_unreadable_metrics(self) -> tuple[epath.Path, str] | None:
    """(a checkpoint, what is wrong with its metrics), the same on all processes; None when there is none."""
    reasons = {step: why for step in _steps(self.folder) if (why := _unreadable_metrics(self.folder / str(step)))}
    step = faults.from_first(max(reasons, default=-1))
    path = self.folder / str(step)
    return None if step < 0 else (path, reasons.get(step, f"{path}: its metrics cannot be read"))

  def _require_folder(self):
    vanished = faults.on_any_process(not self.folder.exists())
    if vanished:
      log.warning("%s: has vanished with the checkpoints in it; it is made again", self.folder)
    if vanished or self._manager is None:
      self._open()

  def _settle(self):
    """Waits for the save under way and notes whether it arrived."""
    if self._saving is None:
      return
    step, self._saving, why = self._saving, None, None
    try:
      self._manager.wait_until_finished()
      if not (self.folder / str(step)).exists():
        why = "it has vanished"
    except Exception as error:  # As in `save`.
      why = faults.reason(error)
    self._note(step, why)

  def _note(self, step: int, why: str | None):
    """Remembers and says that the save of `step` failed for the reason `why`; None is a success."""
    if not faults.on_any_process(why is not None):
      self._lost = None
      return
    self._lost = step, why or "on another process"
    log.warning("%s: step %d could not be saved (%s); training goes on, and the next save is tried as usual",
                self.folder, step, self._lost[1])
    self._close()  # A manager whose save failed has forgotten which checkpoints it wanted to remove.

  def _close(self):
    manager, self._manager = self._manager, None
    try:
      if manager is not None:
        manager.close()
    except Exception as error:  # Of a save that failed: `_note` has said it.
      log.debug("%s: closing after a failed save: %s", self.folder, error)


def _read(path: epath.Path, state: State) -> State:
  """A checkpoint in the shapes, types and placement of `state`; `faults.Damaged` on all processes when it is on one."""
  parts, restored, expected, damaged = _as_dict(state), None, {}, None
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), parts)
  try:
    # Not by the manager: its barriers would wait for a process that could not read.
    restored = _read_arrays(path, target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
    expected = _saved_checksums(path)
  except faults.Damaged as error:
    damaged = error
  if faults.on_any_process(damaged is not None):
    raise damaged or faults.Damaged(f"{path}: another process could not read it")
  # Part by part: a dict's leaves come in the order of its names, a state's in the order of its fields.
  restored = {name: jax.tree.unflatten(jax.tree.structure(part), jax.tree.leaves(restored[name]))
              for name, part in parts.items()}
  _require_checksums(path, restored, expected)
  return state.replace(**restored)


def _read_arrays(path: epath.Path, wanted: dict[str, Any], **options) -> dict[str, Any]:
  """The parts of a checkpoint's state that are in `wanted`, unchecked."""

  def read():
    _require_same_leaves(path, wanted)
    return ocp.PyTreeCheckpointHandler().restore(
        path / "state", args=ocp.args.PyTreeRestore(item=wanted, **options))

  return faults.read(path, read)


def _saved_checksums(path: epath.Path) -> dict[str, int]:
  """{array: checksum}; older checkpoints have none."""
  file = path / "checksums" / "metadata"
  return faults.read(path, lambda: json.loads(file.read_text()) if file.exists() else {})


def _require_checksums(path: epath.Path, tree: dict[str, Any], expected: dict[str, int]):
  found = checksums.of(_named(tree)) if expected else {}
  wrong = [name for name, value in found.items() if expected.get(name) != value]
  if wrong:
    raise faults.Damaged(f"{path}: the content of {wrong[0]} is not what was saved"
                         + (f", nor that of {len(wrong) - 1} more" if len(wrong) > 1 else ""))


def _unreadable_metrics(path: epath.Path) -> str | None:
  """Why the metrics of a checkpoint cannot be read; None when they can or there are none."""
  try:
    _quality(path)
  except (OSError, ValueError, KeyError, TypeError) as error:
    return f"{path / 'metrics' / 'metrics'}: cannot be read ({faults.reason(error)})"
  return None


def _quality(path: epath.Path) -> float:
  """What the best checkpoint is chosen by."""
  file = path / "metrics" / "metrics"
  if not file.exists():
    return _UNKNOWN
  metrics = json.loads(file.read_text())
  return _comparable(float(metrics["quality"] if "quality" in metrics else metrics["iou"]))


def _comparable(quality: float | None) -> float:
  """Not a number is neither better nor worse than anything; as the best it would hide all others."""
  return _UNKNOWN if quality is None or not math.isfinite(quality) else quality


def _steps(folder: epath.Path) -> list[int]:
  """The steps of the checkpoints in a folder, in order; what Orbax is still writing has other names."""
  return sorted(int(path.name) for path in (folder.iterdir() if folder.exists() else []) if path.name.isdigit())


def _location(name: str) -> epath.Path:
  return epath.Path(name if "://" in name else os.path.abspath(name))


def _as_dict(state: Any) -> dict[str, Any]:
  """The state as named parts."""
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def shipped() -> dict[str, str]:
  """The models that come with the project: {name: .safetensors file}."""
  return {path.stem: str(path) for path in sorted(_SHIPPED.glob(f"*{safetensors.SUFFIX}"))}


def find(checkpoint: str) -> str:
  """What a user's `--checkpoint` means.

  Args:
    checkpoint: a training workdir (its best checkpoint, else its last), a checkpoint's own folder, a .safetensors
      file, or the name of a shipped model. What exists on disk under that name comes first.

  Returns:
    The absolute path of an Orbax folder or of a .safetensors file.

  Raises:
    UserError: there is none.
  """
  path = _location(checkpoint)
  if checkpoint.endswith(safetensors.SUFFIX) and path.exists():
    return str(path)
  if checkpoint in shipped() and not path.exists():
    return shipped()[checkpoint]
  if (path / "state").is_dir():
    return str(path)
  folder = path if path.name == FOLDER else path / FOLDER
  whole = [folder / str(step) for step in _steps(folder)]
  whole = [path for path in whole if (path / "state").is_dir() and not _unreadable_metrics(path)]
  if not whole:
    raise UserError(f"{checkpoint}: no checkpoint there, expected a training workdir, a folder in its '{FOLDER}', a "
                    f"{safetensors.SUFFIX} file, or one of the shipped models: {', '.join(shipped()) or 'none'}"
                    f"{did_you_mean(checkpoint, shipped())}")
  return str(max(whole, key=lambda path: (_quality(path), int(path.name))))


def load_config(checkpoint: str) -> ml_collections.ConfigDict:
  """The config a checkpoint (see `find`) was trained with."""
  path = find(checkpoint)
  if path.endswith(safetensors.SUFFIX):
    return safetensors.load(path)[0]
  path = epath.Path(path) / "config" / "metadata"
  try:
    return ml_collections.ConfigDict(json.loads(path.read_text()))
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: no readable training config in this checkpoint ({error})") from error


def newest_origin(workdir: str) -> tuple[int, ml_collections.ConfigDict, dict[str, dict]] | None:
  """(step, config, inputs) that the newest checkpoint in `workdir` was made with; None when none says so.

  What is damaged is passed over, as `restore` does. Inputs: as they were given to `save`; {} in older checkpoints.
  """
  folder = _location(workdir) / FOLDER
  for step in reversed(_steps(folder)):
    path = folder / str(step)
    with contextlib.suppress(OSError, ValueError, UserError):
      file = path / "inputs" / "metadata"
      return step, load_config(str(path)), json.loads(file.read_text()) if file.exists() else {}
  return None


def load_variables(checkpoint: str, expected: dict[str, Any]) -> dict[str, Any]:
  """The averaged weights for inference.

  Args:
    checkpoint: see `find`.
    expected: {"params", "batch_stats"} of shapes (`jax.eval_shape` of the network's `init`).

  Returns:
    The same tree as numpy arrays.

  Raises:
    UserError: the checkpoint holds other arrays (the sentence names the first that differ), or is damaged.
  """
  path = find(checkpoint)
  if path.endswith(safetensors.SUFFIX):
    wanted = {"params": expected["params"], "batch_stats": expected.get("batch_stats", {})}
    variables = safetensors.load(path)[1]
    _require_same_shapes(path, variables, wanted)
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), variables, wanted)
  wanted = {"ema": expected["params"], "batch_stats": expected.get("batch_stats", {})}
  path = epath.Path(path)
  restore_args = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), wanted)
  restored = _read_arrays(path, wanted, restore_args=restore_args, partial_restore=True)
  _require_checksums(path, restored, _saved_checksums(path))
  return {"params": restored["ema"], "batch_stats": restored["batch_stats"]}


def _require_same_leaves(path: epath.Path, wanted: dict[str, Any]):
  """Compares names and shapes of the top-level parts in `wanted` with what the checkpoint holds."""
  metadata = ocp.PyTreeCheckpointHandler().metadata(path / "state")
  _require_same_shapes(path, getattr(metadata, "tree", metadata), wanted)


def _require_same_shapes(path: str | epath.Path, saved, wanted: dict[str, Any]):
  saved, want = _shapes(saved), _shapes(wanted)
  saved = {name: shape for name, shape in saved.items() if name.split("/")[0] in wanted}
  differ = [f"{name} is {saved.get(name, 'missing')} in the checkpoint and {want.get(name, 'unknown')} in the config"
            for name in sorted(saved.keys() | want.keys()) if saved.get(name) != want.get(name)]
  if differ:
    raise UserError(f"{path}: does not fit the config: {'; '.join(differ[:3])}"
                    + (f"; and {len(differ) - 3} more" if len(differ) > 3 else ""))


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  return {name: tuple(leaf.shape) for name, leaf in _named(tree).items()}


def _named(tree) -> dict[str, Any]:
  """The arrays of a tree by their path in it, like "params/student/neck/kernel"."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  name = lambda path: "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
  return {name(path): leaf for path, leaf in leaves if hasattr(leaf, "shape")}
