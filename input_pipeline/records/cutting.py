"""Which part of a frame is stored: the surroundings of the target, in the frame's own pixels.

Nothing is resampled, so that a crop made from the stored part equals the one from the frame up to the JPEG's error.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable

import cv2
import numpy as np

from input_pipeline.datasets import contents
from input_pipeline.frames import FrameSource, ImageFiles, VideoFile
from input_pipeline.geometry import template_window
from input_pipeline.sampling import anchors
from input_pipeline.sequences import Sequence

# Half the side of what is stored, in sides of the template window. Enough for every shift, scale and off-target window
# of configs/base.py with search crops of twice the template's side (`sampling.needed_context` is 2.98).
CONTEXT = 3.0
JPEG_QUALITY = 95
_MARGIN = 2  # Pixels, for the interpolation.


@dataclasses.dataclass(frozen=True)
class PackedSequence:
  """What is stored of a sequence besides its labels.

  Attributes:
    jpegs: [T] the encoded parts.
    rectangles: int32 [T, 4] x, y, w, h of the parts in their frames.
    means: float32 [T], the whole frames' mean grey levels.
  """

  jpegs: list[bytes]
  rectangles: np.ndarray
  means: np.ndarray


def rectangles(boxes: np.ndarray, context: float, width: int, height: int) -> np.ndarray:
  """The parts of frames of one size to store around the anchor boxes [T, 4]: int32 [T, 4] xywh, inside the frame."""
  x, y, side = template_window(np.asarray(boxes, np.float64)).T
  reach = context * side + _MARGIN
  left = np.clip(np.floor(x - reach), 0, width - 1)
  top = np.clip(np.floor(y - reach), 0, height - 1)
  right = np.clip(np.ceil(x + reach), left + 1, width)
  bottom = np.clip(np.ceil(y + reach), top + 1, height)
  return np.stack([left, top, right - left, bottom - top], -1).astype(np.int32)


def cut(sequence: Sequence, context: float, advance: Callable[[], object]) -> PackedSequence:
  """Encodes a sequence with frames; `advance()` is called after every one of them. Errors as the frames'."""
  assert sequence.frames is not None
  boxes, jpegs, parts, means = anchors(sequence), [], [], []
  for t, frame in enumerate(sequence.frames):
    height, width = frame.shape
    x, y, w, h = rectangles(boxes[t:t + 1], context, width, height)[0]
    _, jpeg = cv2.imencode(".jpg", frame[y:y + h, x:x + w], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    jpegs.append(jpeg.tobytes())
    parts.append((x, y, w, h))
    means.append(cv2.mean(frame)[0])
    advance()
  return PackedSequence(jpegs, np.array(parts, np.int32), np.array(means, np.float32))


def fingerprint(sequences: list[Sequence], context: float) -> str:
  """What the packed data depend on: names, labels, context, quality, and the bytes of the files of the frames."""
  return _fingerprint("v3", sequences, context, lambda frames: contents.digest(frames) or "")


def fingerprint_by_sizes(sequences: list[Sequence], context: float) -> str:
  """What earlier versions took for it: of the files of the frames their sizes only."""

  def sizes(frames: FrameSource | None) -> str:
    files = frames.paths if isinstance(frames, ImageFiles) else [frames.path] if isinstance(frames, VideoFile) else []
    return "".join(f"{os.stat(path).st_size} " for path in files)

  return _fingerprint("v2", sequences, context, sizes)


def _fingerprint(version: str, sequences: list[Sequence], context: float,
                 describe: Callable[[FrameSource | None], str]) -> str:
  digest = hashlib.sha256(f"{version} context {context:g} jpeg {JPEG_QUALITY}".encode())
  for sequence in sequences:
    digest.update(f"{sequence.name} {len(sequence)} ".encode())
    digest.update(np.ascontiguousarray(sequence.boxes).tobytes())
    digest.update(np.ascontiguousarray(sequence.lookalikes).tobytes())
    digest.update(describe(sequence.frames).encode())
  return digest.hexdigest()[:16]
