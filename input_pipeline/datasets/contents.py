"""What the frames of a sequence are made of: a digest of their files, to tell results of other frames."""

import hashlib
import os

from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource


def digest(frames: FrameSource | None) -> str | None:
  """A digest of the files behind frames: how many, their kinds (by suffix), and every byte, in the order of the frames.

  Names, folders and times of the files do not count: a copied data set has the same digest.

  Args:
    frames: with `paths` (image files) or `path` (one file), or others.

  Returns:
    Hexadecimal digits, or None for frames that are in no file, or only partly (arrays, changed or packed frames).

  Raises:
    UserError: a file that cannot be read.
  """
  paths = getattr(frames, "paths", None) or [getattr(frames, "path", None)]
  if paths == [None]:
    return None
  whole = hashlib.sha256(f"v1 {len(paths)} ".encode())
  for path in paths:
    try:
      with open(path, "rb") as file:
        # Of each file by itself, so that nothing can move over from the end of one to the start of the next.
        whole.update(os.path.splitext(path)[1].lower().encode() + hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
      raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
  return whole.hexdigest()[:32]
