"""What a training has left, or comes with the project: found by a user's word for it, and read."""

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import contents, safetensors
from siamdff_jax.names import did_you_mean

_SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "pretrained"


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
  path = contents.location(checkpoint)
  if checkpoint.endswith(safetensors.SUFFIX) and path.exists():
    return str(path)
  if checkpoint in shipped() and not path.exists():
    return shipped()[checkpoint]
  if (path / "state").is_dir():
    return str(path)
  folder = path if path.name == contents.FOLDER else path / contents.FOLDER
  whole = [folder / str(step) for step in contents.steps(folder)]
  whole = [path for path in whole if (path / "state").is_dir() and not contents.unreadable_metrics(path)]
  if not whole:
    raise UserError(f"{checkpoint}: no checkpoint there, expected a training workdir, a folder in its "
                    f"'{contents.FOLDER}', a {safetensors.SUFFIX} file, or one of the shipped models: "
                    f"{', '.join(shipped()) or 'none'}{did_you_mean(checkpoint, shipped())}")
  return str(max(whole, key=lambda path: (contents.quality(path), int(path.name))))


def load_config(checkpoint: str) -> ml_collections.ConfigDict:
  """The config a checkpoint (see `find`) was trained with.

  Raises:
    UserError: no checkpoint there, or one without a readable config.
  """
  path = find(checkpoint)
  if path.endswith(safetensors.SUFFIX):
    return safetensors.load(path)[0]
  file = epath.Path(path) / "config" / "metadata"
  try:
    return ml_collections.ConfigDict(json.loads(file.read_text()))
  except (OSError, ValueError) as error:
    raise UserError(f"{file}: no readable training config in this checkpoint ({error})") from error


def load_variables(checkpoint: str, expected: Mapping[str, Any]) -> dict[str, Any]:
  """The averaged weights for inference.

  Args:
    checkpoint: see `find`.
    expected: {"params", "batch_stats"} of shapes (`jax.eval_shape` of the network's `init`).

  Returns:
    The same tree as numpy arrays.

  Raises:
    UserError: the checkpoint holds other arrays (the sentence names the first that differ), or is damaged.
  """
  found = find(checkpoint)
  if found.endswith(safetensors.SUFFIX):
    wanted = {"params": expected["params"], "batch_stats": expected.get("batch_stats", {})}
    variables = safetensors.load(found)[1]
    contents.require_same_shapes(found, variables, wanted)
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), variables, wanted)
  wanted = {"ema": expected["params"], "batch_stats": expected.get("batch_stats", {})}
  path = epath.Path(found)
  restore_args = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), wanted)
  restored = contents.read_arrays(path, wanted, restore_args=restore_args, partial_restore=True)
  contents.require_checksums(path, restored, contents.saved_checksums(path))
  return {"params": restored["ema"], "batch_stats": restored["batch_stats"]}


def newest_origin(workdir: str) -> tuple[int, ml_collections.ConfigDict, dict[str, dict]] | None:
  """(step, config, inputs) that the newest checkpoint in `workdir` was made with; None when none says so.

  What is damaged is passed over, as `Checkpoints.restore` does. Inputs: as they were given to `Checkpoints.save`; {} in
  older checkpoints.
  """
  folder = contents.location(workdir) / contents.FOLDER
  for step in reversed(contents.steps(folder)):
    path = folder / str(step)
    with contextlib.suppress(OSError, ValueError, UserError):
      file = path / "inputs" / "metadata"
      return step, load_config(str(path)), json.loads(file.read_text()) if file.exists() else {}
  return None
