"""Encoding a video: a file that plays from its first frame to its last, or none, and an error that says why."""

import itertools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable

import imageio_ffmpeg
import numpy as np

from input_pipeline.errors import UserError
from input_pipeline.files import replacing

_QUALITY = 10  # x264's constant rate factor: hardly to be told from the source (our choice).


def find_encoder() -> str:
  """The path of ffmpeg; raises UserError where there is none."""
  try:
    return imageio_ffmpeg.get_ffmpeg_exe()
  except RuntimeError as error:
    raise UserError("no ffmpeg to write videos with, expected the one of the package imageio-ffmpeg") from error


def encode(path: str, images: Iterable[np.ndarray], rate: float) -> None:
  """Writes an H.264 mp4 that plays in a browser, through a temporary file beside it.

  The file is decoded once before it gets its name: neither the exit code nor the size tells for sure that it is whole.

  Args:
    path: the file.
    images: uint8 [H, W, 3] RGB, at least one, all of one size.
    rate: frames per second.

  Raises:
    UserError: the file cannot be written; there is none then, or the one that was there before.
  """
  try:
    with replacing(path) as temporary:
      count, decoded = _run(temporary, images, rate), _count(temporary)
      if decoded != count:
        raise OSError(f"of {count} frames {decoded} can be decoded again")
  except OSError as error:
    raise UserError(f"{path}: the video cannot be written ({error.strerror or error})") from error


def _run(path: str, images: Iterable[np.ndarray], rate: float) -> int:
  """How many images ffmpeg was given; OSError when it says that it failed."""
  images = iter(images)
  first, count = next(images), 0
  height, width = first.shape[:2]
  even = ["-vf", f"scale={width + width % 2}:{height + height % 2}"] if width % 2 or height % 2 else []
  command = [find_encoder(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
             "-r", f"{rate:.6f}", "-i", "-", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", str(_QUALITY),
             *even, "-f", "mp4", os.path.abspath(path)]  # An absolute path is neither an option nor a URL.
  with tempfile.TemporaryFile() as said:
    # In a session of its own, so that Ctrl-C reaches it through this process only.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                               start_new_session=True)
    try:
      for image in itertools.chain([first], images):
        count += 1
        if not _given(process, np.ascontiguousarray(image)):
          break
      _given(process, None)
      code = process.wait()
    except BaseException:
      process.kill()
      _given(process, None)
      process.wait()
      raise
    if code:
      said.seek(0)
      raise OSError(f"ffmpeg: {_reason(code, said.read().decode(errors='backslashreplace'))}")
  return count


def _reason(code: int, said: str) -> str:
  """Why ffmpeg failed: the signal that ended it, or the last of what it said, without "[mp4 @ 0x55d0c8]"."""
  if code < 0:
    return signal.strsignal(-code) or f"signal {-code}"
  lines = [re.sub(r"^(\[.*?\] *)+", "", line) for line in said.splitlines() if line.strip()]
  return lines[-1] if lines else f"exit code {code}"


def _given(process: subprocess.Popen, image: np.ndarray | None) -> bool:
  """Whether ffmpeg takes an image, or the end of them (None); it does not once it has failed."""
  assert process.stdin is not None  # It is a pipe.
  try:
    if image is None:
      process.stdin.close()
    else:
      process.stdin.write(image)
  except BrokenPipeError:
    return False
  return True


def _count(path: str) -> int:
  """How many frames of a video can be decoded."""
  try:
    return imageio_ffmpeg.count_frames_and_secs(os.path.abspath(path))[0]
  except RuntimeError:
    return 0
