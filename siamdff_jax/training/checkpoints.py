"""Checkpoints by Orbax: saved in the background, atomic, the best and the last kept, config and step inside."""

import json
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from input_pipeline.errors import DataError
from siamdff_jax.export import safetensors
from siamdff_jax.training.state import TrainState

FOLDER = "checkpoints"
_UNKNOWN = -1.0  # The IoU of a checkpoint that was not validated: worse than any.
_SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "pretrained"


class Checkpoints:
  """The checkpoints of one workdir. Use as a context manager: leaving it waits for the last save."""

  def __init__(self, workdir: str):
    self.folder = os.path.join(os.path.abspath(workdir), FOLDER)
    # Best by the validation IoU of the moving average; a checkpoint without one is only ever "the last".
    quality = lambda metrics: metrics["iou"]
    keep = managers.AnyPreservationPolicy([
        managers.LatestN(1), managers.BestN(get_metric_fn=quality, n=1, keep_checkpoints_without_metrics=False)])
    # `best_fn` is what makes the manager write the metrics to disk, for `find` and for the run after a restart.
    options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=quality, enable_async_checkpointing=True,
                                           cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._manager.wait_until_finished()
    self._manager.close()

  @property
  def last_step(self) -> int | None:
    return self._manager.latest_step()

  def save(self, state: TrainState, config: ml_collections.ConfigDict, metrics: dict[str, float] | None = None):
    """Starts saving `state` under its step; returns when the state may be changed again."""
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._manager.save(step, metrics=metrics or {"iou": _UNKNOWN}, args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(_as_dict(state)), config=ocp.args.JsonSave(json.loads(config.to_json_best_effort()))))

  def wait(self):
    self._manager.wait_until_finished()

  def restore(self, state: TrainState) -> TrainState:
    """The last checkpoint, in the shapes, types and placement of `state`.

    Raises:
      DataError: the checkpoint holds other arrays than this config makes.
    """
    step = self.last_step
    path = os.path.join(self.folder, str(step))
    _require_same_leaves(path, _as_dict(state))
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _as_dict(state))
    restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
        item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))))["state"]
    # Part by part: a dict's leaves come in the order of its names, a state's in the order of its fields.
    return state.replace(**{name: jax.tree.unflatten(jax.tree.structure(part), jax.tree.leaves(restored[name]))
                            for name, part in _as_dict(state).items()})


def _as_dict(state: TrainState) -> dict[str, Any]:
  """The state as named parts."""
  return {field: getattr(state, field) for field in ("step", "params", "batch_stats", "opt_state", "ema", "bad_steps")}


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
    DataError: there is none.
  """
  if os.path.isfile(checkpoint) and checkpoint.endswith(safetensors.SUFFIX):
    return os.path.abspath(checkpoint)
  if not os.path.exists(checkpoint) and checkpoint in shipped():
    return shipped()[checkpoint]
  if os.path.isdir(os.path.join(checkpoint, "state")):
    return os.path.abspath(checkpoint)
  folder = checkpoint if os.path.basename(os.path.normpath(checkpoint)) == FOLDER else os.path.join(checkpoint, FOLDER)
  steps = sorted(int(name) for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.isdigit())
  if not steps:
    raise DataError(f"{checkpoint}: no checkpoint there, expected a training workdir, a folder in its '{FOLDER}', a "
                    f"{safetensors.SUFFIX} file, or one of the shipped models: {', '.join(shipped()) or 'none'}")

  def quality(step):
    path = os.path.join(folder, str(step), "metrics", "metrics")
    return json.load(open(path))["iou"] if os.path.exists(path) else _UNKNOWN

  return os.path.abspath(os.path.join(folder, str(max(steps, key=lambda step: (quality(step), step)))))


def load_config(checkpoint: str) -> ml_collections.ConfigDict:
  """The config a checkpoint (see `find`) was trained with."""
  path = find(checkpoint)
  if path.endswith(safetensors.SUFFIX):
    return safetensors.load(path)[0]
  path = os.path.join(path, "config", "metadata")
  try:
    with open(path) as file:
      return ml_collections.ConfigDict(json.load(file))
  except (OSError, ValueError) as error:
    raise DataError(f"{path}: no readable training config in this checkpoint ({error})") from error


def load_variables(checkpoint: str, expected: dict[str, Any]) -> dict[str, Any]:
  """The averaged weights for inference.

  Args:
    checkpoint: see `find`.
    expected: {"params", "batch_stats"} of shapes (`jax.eval_shape` of the network's `init`).

  Returns:
    The same tree as numpy arrays.

  Raises:
    DataError: the checkpoint holds other arrays; the sentence names the first that differ.
  """
  path = find(checkpoint)
  if path.endswith(safetensors.SUFFIX):
    wanted = {"params": expected["params"], "batch_stats": expected.get("batch_stats", {})}
    variables = safetensors.load(path)[1]
    _require_same_shapes(path, variables, wanted)
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), variables, wanted)
  wanted = {"ema": expected["params"], "batch_stats": expected.get("batch_stats", {})}
  _require_same_leaves(path, wanted)
  handler = ocp.PyTreeCheckpointHandler()
  restore_args = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), wanted)
  restored = handler.restore(epath.Path(path) / "state", args=ocp.args.PyTreeRestore(
      item=wanted, restore_args=restore_args, partial_restore=True))
  return {"params": restored["ema"], "batch_stats": restored["batch_stats"]}


def _require_same_leaves(path: str, wanted: dict[str, Any]):
  """Compares names and shapes of the top-level parts in `wanted` with what the checkpoint holds."""
  metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(path) / "state")
  _require_same_shapes(path, getattr(metadata, "tree", metadata), wanted)


def _require_same_shapes(path: str, saved, wanted: dict[str, Any]):
  saved, want = _shapes(saved), _shapes(wanted)
  saved = {name: shape for name, shape in saved.items() if name.split("/")[0] in wanted}
  differ = [f"{name} is {saved.get(name, 'missing')} in the checkpoint and {want.get(name, 'unknown')} in the config"
            for name in sorted(saved.keys() | want.keys()) if saved.get(name) != want.get(name)]
  if differ:
    raise DataError(f"{path}: does not fit the config: {'; '.join(differ[:3])}"
                    + (f"; and {len(differ) - 3} more" if len(differ) > 3 else ""))


def _shapes(tree) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  name = lambda path: "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
  return {name(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}
