"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from input_pipeline.errors import UserError


def make_folder(folder: str) -> None:
  """Makes a folder to write to and tries it: what takes long to compute must not be lost to a mistake in its name.

  Raises:
    UserError: it cannot be made or written.
  """
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
      file.write(b"tried")
  except OSError as error:
    raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
  """Writes a file through a temporary one beside it, so that a killed run leaves no half file.

  Text is in UTF-8; what is no text in it (a sequence's name may be any bytes) is written as Python shows it.

  Raises:
    UserError: it cannot be written.
  """
  path = os.fspath(path)
  content = content.encode(errors="backslashreplace") if isinstance(content, str) else content
  try:
    with replacing(path) as temporary, open(temporary, "wb") as file:
      file.write(content)
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
  """A temporary file beside `path` to write to, which takes its place where nothing is raised, and else is removed."""
  handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=f".{os.path.basename(path)}.")
  os.close(handle)
  try:
    yield temporary
    os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read.
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise
