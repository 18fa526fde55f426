"""One file with the averaged weights and the training config: what a shipped model is.

Arrays are named by their path in the variables ("params/head/class/kernel"). The metadata has one entry, JSON with
the config, notes (licence, data, ...) and a digest of everything, so that damaged files are told apart.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import safetensors
from flax import traverse_util
from safetensors.numpy import save as to_bytes

from input_pipeline.errors import UserError
from input_pipeline.files import write_atomically

SUFFIX = ".safetensors"
_ENTRY = "siamdff_jax"  # A single entry: the library does not keep the order of several.
_COLLECTIONS = ("params", "batch_stats")


def save(path: str, config: ml_collections.ConfigDict, variables: Mapping[str, Any], dtype: str = "float16",
         notes: Mapping[str, str] | None = None) -> None:
  """Writes the file; the same arguments give the same bytes.

  Args:
    path: ends in ".safetensors"; folders are made.
    config: the training config.
    variables: {"params", "batch_stats"} of arrays.
    dtype: "float32", or "float16" for kernels (vectors and statistics stay float32: small, and worth the precision).
    notes: kept with the weights: licence, training data, results.

  Raises:
    UserError: another suffix, a value that is not finite in `dtype`, or the file cannot be written.
  """
  if not path.endswith(SUFFIX):
    raise UserError(f"{path}: expected a file name ending in {SUFFIX}")
  arrays = {}
  for name, value in sorted(traverse_util.flatten_dict(dict(variables), sep="/").items()):
    value = np.asarray(value, np.float32)
    with np.errstate(over="ignore"):
      array = np.ascontiguousarray(value.astype(dtype) if value.ndim > 1 else value)
    if not np.isfinite(array).all():
      raise UserError(f"{path}: {name} has values that are not finite in {dtype}, nothing written")
    arrays[name] = array
  about = {"config": json.loads(config.to_json_best_effort()), "notes": dict(notes or {})}
  entry = json.dumps(about | {"sha256": _digest(arrays, about)}, sort_keys=True)
  try:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
  write_atomically(path, to_bytes(arrays, metadata={_ENTRY: entry}))


def load(path: str) -> tuple[ml_collections.ConfigDict, dict[str, dict]]:
  """Reads what `save` wrote.

  Returns:
    The config and {"params", "batch_stats"} as nested dicts of float32 numpy arrays.

  Raises:
    UserError: no such file, not a safetensors file, without a config, or damaged.
  """
  about, arrays = _read(path)
  nested = traverse_util.unflatten_dict({name: value.astype(np.float32) for name, value in arrays.items()}, sep="/")
  return ml_collections.ConfigDict(about["config"]), {name: nested.get(name, {}) for name in _COLLECTIONS}


def read_arrays(path: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Arrays and metadata of any safetensors file, ours or not.

  Raises:
    UserError: no such file, or not in that format.
  """
  if not os.path.isfile(path):
    raise UserError(f"{path}: no such file, expected a {SUFFIX} file")
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return {name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata() or {}
  except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(f"{path}: not a readable {SUFFIX} file ({error})") from error


def _read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What stands about the arrays in the metadata, and the arrays; checked."""
  arrays, metadata = read_arrays(path)
  try:
    about = json.loads(metadata[_ENTRY])
    digest, config = about.pop("sha256"), about["config"]
    about["notes"].items(), config["model"]["backbone"].items()
  except (KeyError, ValueError, TypeError, AttributeError) as error:
    raise UserError(f"{path}: no training config in its metadata, expected a file that scripts/export.py "
                    "--format=safetensors wrote") from error
  if digest != _digest(arrays, about):
    raise UserError(f"{path}: damaged, its content does not match its checksum; fetch or export it again")
  if any(name.split("/")[0] not in _COLLECTIONS for name in arrays):
    raise UserError(f"{path}: holds arrays outside of {_COLLECTIONS}")
  return about, arrays


def _digest(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
  """SHA-256 over config, notes, and every array's name, type, shape and bytes."""
  digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
  for name in sorted(arrays):
    digest.update(f"\n{name} {arrays[name].dtype} {arrays[name].shape}\n".encode() + arrays[name].tobytes())
  return digest.hexdigest()
