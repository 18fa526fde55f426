"""What lies where in the folder of a checkpoint, and whether it is what was saved."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import checksums, faults

FOLDER = "checkpoints"  # Of a training workdir.
_UNKNOWN = -1.0  # The quality of a checkpoint that was not validated: worse than any.


def location(name: str) -> epath.Path:
  """The absolute path of a folder, or a bucket's url as it is."""
  return epath.Path(name if "://" in name else os.path.abspath(name))


def steps(folder: epath.Path) -> list[int]:
  """The steps of the checkpoints in a folder, in order; what Orbax is still writing has other names."""
  return sorted(int(path.name) for path in (folder.iterdir() if folder.exists() else []) if path.name.isdigit())


def quality(path: epath.Path) -> float:
  """What the best checkpoint is chosen by; raises an OSError, ValueError, KeyError or TypeError when it is damaged."""
  file = path / "metrics" / "metrics"
  if not file.exists():
    return _UNKNOWN
  metrics = json.loads(file.read_text())
  return comparable(float(metrics["quality"] if "quality" in metrics else metrics["iou"]))  # "iou": of older ones.


def comparable(quality: float | None) -> float:
  """Not a number is neither better nor worse than anything; as the best it would hide all others."""
  return _UNKNOWN if quality is None or not math.isfinite(quality) else quality


def unreadable_metrics(path: epath.Path) -> str | None:
  """Why the metrics of a checkpoint cannot be read; None when they can or there are none."""
  try:
    quality(path)
  except (OSError, ValueError, KeyError, TypeError) as error:
    return f"{path / 'metrics' / 'metrics'}: cannot be read ({faults.reason(error)})"
  return None


def read_arrays(path: epath.Path, wanted: Mapping[str, Any], **options: Any) -> dict[str, Any]:
  """The parts of a checkpoint's state that are in `wanted`, unchecked.

  Args:
    path: of the checkpoint.
    wanted: {part: tree of shapes}.
    **options: of Orbax's `PyTreeRestore`.

  Raises:
    UserError: it holds other arrays.
    Damaged: it cannot be read.
  """

  def read() -> dict[str, Any]:
    metadata = ocp.PyTreeCheckpointHandler().metadata(path / "state")
    require_same_shapes(path, getattr(metadata, "tree", metadata), wanted)
    return ocp.PyTreeCheckpointHandler().restore(path / "state", args=ocp.args.PyTreeRestore(item=wanted, **options))

  return faults.read(path, read)


def saved_checksums(path: epath.Path) -> dict[str, int]:
  """{array: checksum}; older checkpoints have none."""
  file = path / "checksums" / "metadata"
  return faults.read(path, lambda: json.loads(file.read_text()) if file.exists() else {})


def require_checksums(path: epath.Path, tree: Mapping[str, Any], expected: Mapping[str, int]) -> None:
  """Raises `Damaged` when arrays that were read from a checkpoint have other checksums than `expected`, if any are."""
  found = checksums.of(named(tree)) if expected else {}
  wrong = [name for name, value in found.items() if expected.get(name) != value]
  if wrong:
    raise faults.Damaged(f"{path}: the content of {wrong[0]} is not what was saved"
                         + (f", nor that of {len(wrong) - 1} more" if len(wrong) > 1 else ""))


def require_same_shapes(path: str | epath.Path, saved: Any, wanted: Mapping[str, Any]) -> None:
  """Raises a UserError when the top-level parts in `wanted` have other names or shapes than what was saved."""
  found, want = _shapes(saved), _shapes(wanted)
  found = {name: shape for name, shape in found.items() if name.split("/")[0] in wanted}
  differ = [f"{name} is {found.get(name, 'missing')} in the checkpoint and {want.get(name, 'unknown')} in the config"
            for name in sorted(found.keys() | want.keys()) if found.get(name) != want.get(name)]
  if differ:
    raise UserError(f"{path}: does not fit the config: {'; '.join(differ[:3])}"
                    + (f"; and {len(differ) - 3} more" if len(differ) > 3 else ""))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  return {name: tuple(leaf.shape) for name, leaf in named(tree).items()}


def named(tree: Any) -> dict[str, Any]:
  """The arrays of a tree by their path in it, like "params/student/neck/kernel"."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))
  return {"/".join(map(_key, path)): leaf for path, leaf in leaves if hasattr(leaf, "shape")}


def _key(entry: Any) -> str:
  """The name of one step of a path, in a dict, a dataclass or a sequence."""
  return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
