"""The folder of an export: the files of a format, and manifest.json, which describes them and holds their hashes.

A runtime may answer a damaged file with a crash, or with other numbers: `checked` looks at every byte before one of
them gets to see it.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from input_pipeline.errors import UserError
from input_pipeline.files import write_atomically
from siamdff_jax.export.passes import NAMES, Passes

MANIFEST = "manifest.json"
_AGAIN = "export it again"


@contextlib.contextmanager
def writing(folder: str, passes: Passes, format: str, places: Mapping[str, str], **more: Any) -> Iterator[str]:
  """A temporary folder to write the files to; they become the export when the block ends without an error.

  The manifest is the last file to come, and that of an earlier export the first to go: no folder has one that does not
  fit its files.

  Args:
    folder: of the export, made where it does not exist. An export in the same format is replaced.
    passes: the live ones.
    format: its name in the manifest.
    places: by pass, the file that holds it, or what else leads to it.
    more: what else the manifest is to say.

  Raises:
    UserError: the folder cannot be written, or holds an export in another format.
  """
  try:
    os.makedirs(folder, exist_ok=True)
    _refuse_other_format(folder, format)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder, ignore_cleanup_errors=True) as part:
      yield part
      files = sorted(path.relative_to(part) for path in pathlib.Path(part).rglob("*") if path.is_file())
      described = {name: {"file": places[name]} | passes.manifest["passes"][name] for name in NAMES}
      hashes = {path.as_posix(): _about(os.path.join(part, path)) for path in files}
      manifest = passes.manifest | more | {"format": format, "passes": described, "files": hashes}
      pathlib.Path(folder, MANIFEST).unlink(missing_ok=True)
      for path in files:
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        os.replace(os.path.join(part, path), os.path.join(folder, path))
  except OSError as error:
    raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error
  text = json.dumps(manifest | {"sha256": _digest(manifest)}, indent=2)
  write_atomically(os.path.join(folder, MANIFEST), text.encode())


def checked(folder: str, format: str, opened: Collection[str], passes: Passes | None = None) -> dict[str, Any]:
  """The manifest of an export, after every file that it names is found to be what was written.

  Args:
    folder: of the export.
    format: which it must be in.
    opened: the files that are going to be opened.
    passes: the live ones, whose inputs and outputs it must have.

  Raises:
    UserError: naming the file that is missing or damaged; another format; other inputs or outputs; or an export of a
      version that did not write hashes.
  """
  path = os.path.join(folder, MANIFEST)
  manifest = _read(path)
  if manifest.get("format") != format:
    raise UserError(f"{path}: of an export as {manifest.get('format')}, expected {format}")
  if "files" not in manifest:
    raise UserError(f"{path}: without the SHA-256 of its files, as earlier versions wrote it, so that damage would not "
                    f"be seen; {_AGAIN}")
  wanted = manifest.pop("sha256", None)
  if wanted != _digest(manifest):
    raise UserError(f"{path}: damaged, its content is not that of its SHA-256; {_AGAIN}")
  for name in opened:
    if name not in manifest["files"]:
      raise UserError(f"{path}: does not name {name}; {_AGAIN}")
  for name, about in manifest["files"].items():
    _require_whole(os.path.join(folder, name), about)
  if passes:
    _require_same_passes(path, manifest["passes"], passes.manifest["passes"])
  return manifest


def _refuse_other_format(folder: str, format: str) -> None:
  path = os.path.join(folder, MANIFEST)
  if os.path.exists(path) and (other := _read(path).get("format")) != format:
    raise UserError(f"{path}: is not of an export as {format} but of one as {other}; choose another --out")


def _read(path: str) -> dict[str, Any]:
  try:
    with open(path, encoding="utf-8") as file:
      manifest = json.load(file)
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror or error}), expected that of an export") from error
  except ValueError as error:
    raise UserError(f"{path}: damaged, it is not JSON ({error}); remove the folder and {_AGAIN}") from error
  if not isinstance(manifest, dict):
    raise UserError(f"{path}: not of an export, expected a JSON object")
  return manifest


def _require_whole(path: str, about: Mapping[str, Any]) -> None:
  try:
    found = _about(path)
  except FileNotFoundError as error:
    raise UserError(f"{path}: missing, {MANIFEST} names it; {_AGAIN}") from error
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
  if found["bytes"] != about["bytes"]:
    raise UserError(f"{path}: damaged, it has {found['bytes']} bytes and {MANIFEST} says {about['bytes']}; {_AGAIN}")
  if found["sha256"] != about["sha256"]:
    raise UserError(f"{path}: damaged, its SHA-256 is not that in {MANIFEST}; {_AGAIN}")


def _require_same_passes(path: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
  """Compares what two manifests say of the passes."""
  for name in NAMES:
    for side in ("inputs", "outputs"):
      for their, our in zip(theirs[name][side], ours[name][side], strict=True):
        if their != our:
          raise UserError(f"{path}: of another network or search side: {our['name']} has the shape {their['shape']}, "
                          f"here {our['shape']}")


def _about(path: str) -> dict[str, Any]:
  """What the manifest holds of a file."""
  with open(path, "rb") as file:
    return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(manifest: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
