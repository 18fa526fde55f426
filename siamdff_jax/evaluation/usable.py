"""Which sequences of a data set can be evaluated; the others are named, and the command fails when all is written."""

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from input_pipeline import datasets
from input_pipeline.datasets import contents
from input_pipeline.errors import UserError
from input_pipeline.frames import FrameSource
from input_pipeline.sequences import FrameShape, Sequence
from siamdff_jax.evaluation.comparison import missing_note

log = logging.getLogger(__name__)


class Usable:
  """The sequences of a data set as far as they can be evaluated. One that fails under any tracker is out for all.

  Attributes:
    format, root: the data set.
    loaded: those that could be loaded, and where frames are wanted show their target in the first; never changes.
    total: how many sequences there are, with those that could not be loaded.
    left_out: what is wrong with the others, by name.
  """

  def __init__(self, format: str, root: str, part: str = "", *, frames: bool = True) -> None:
    """Loads what can be loaded. Arguments and errors are those of `datasets.load_readable`.

    Raises:
      UserError: also where no sequence can be evaluated.
    """
    self.format, self.root = format, root
    self._digests: dict[str, str | None] = {}
    loaded, errors = datasets.load_readable(format, root, part, frames=frames)
    for sequence in loaded:
      if frames and not sequence.visible[0]:
        errors[sequence.name] = UserError(
            f"{sequence.name}: the target is absent in the first frame, expected a box to start from")
    self.loaded = [sequence for sequence in loaded if sequence.name not in errors]
    self.total = len(self.loaded) + len(errors)
    self.left_out: dict[str, str] = {}
    self.leave_out(errors)
    if frames:
      self._say_damage()

  def _say_damage(self) -> None:
    """Names what decoders hide: a video that decodes from its first frame to its last, but to something else."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
      for said in pool.map(lambda sequence: _frames(sequence).damage(), self.loaded):
        if said:
          log.warning("%s", said)

  @property
  def sequences(self) -> list[Sequence]:
    """Those that are still in."""
    return [sequence for sequence in self.loaded if sequence.name not in self.left_out]

  def digest(self, name: str) -> str | None:
    """Of a sequence's frames, see `contents.digest`; they are read once, however many trackers ask."""
    if name not in self._digests:
      self._digests[name] = contents.digest(next(_frames(s) for s in self.loaded if s.name == name))
    return self._digests[name]

  def leave_out(self, errors: Mapping[str, UserError]) -> None:
    """Takes sequences out and says why.

    Args:
      errors: by name; each names its file or sequence.

    Raises:
      UserError: none is left.
    """
    new = {name: error for name, error in sorted(errors.items()) if name not in self.left_out}
    self.left_out |= {name: str(error) for name, error in new.items()}
    if self.total == len(new) == 1:
      raise next(iter(new.values()))
    for error in new.values():
      log.warning("left out: %s", error)
    if not self.sequences:
      raise UserError(f"{self.root}: none of the {self.total} sequences can be evaluated, for the reasons above")

  def finish(self) -> None:
    """Raises UserError where sequences were left out; for the end, when everything is written."""
    if self.left_out:
      raise UserError(f"{missing_note(self.left_out, self.total)}; what is wrong with each is said above")


def _frames(sequence: Sequence) -> FrameSource:
  assert sequence.frames is not None  # They were asked for.
  return sequence.frames


def frames_of(sequence: Sequence) -> Iterator[np.ndarray]:
  """All frames of a sequence, uint8 [H, W]; raises UserError where one cannot be read or has another size."""
  shape = shape_of(sequence)
  for t, frame in enumerate(_frames(sequence)):
    if frame.shape != shape:
      raise UserError(f"{sequence.name}: frame {t} is {FrameShape(*frame.shape)} pixels, expected "
                      f"{shape} as in the frames before or as labelled")
    yield frame


def shape_of(sequence: Sequence) -> FrameShape:
  """The shape of a sequence's frames."""
  return sequence.shape or FrameShape(*_frames(sequence)[0].shape)
