"""Runs a tracker over whole sequences, many streams in lockstep, frames in chunks: one compiled program."""

import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import DataError
from input_pipeline.frames import FrameSource
from siamdff_jax.evaluation.results import Result
from siamdff_jax.tracking.tracker import Tracker


class Stream(NamedTuple):
  """One target to follow: a name, the frames, and its box xywh in the first of them."""

  name: str
  frames: FrameSource
  box: np.ndarray


def check_box(box: np.ndarray, frame_shape: tuple[int, int], where: str):
  """Raises DataError unless the box has a size and its centre lies inside the frame [H, W]."""
  height, width = frame_shape
  x, y, w, h = (float(v) for v in box)
  if not (np.isfinite([x, y, w, h]).all() and w > 0 and h > 0):
    raise DataError(f"{where}: the box {[x, y, w, h]} has no size, expected x,y,w,h with w,h > 0")
  if not (0 <= x + w / 2 < width and 0 <= y + h / 2 < height):
    raise DataError(f"{where}: the box {[x, y, w, h]} lies outside the frame of {width}x{height} pixels")


class Runner:
  """Tracks streams with one set of weights.

  Attributes:
    frames_tracked, seconds: of all calls so far without the first chunk of each compiled shape; decoding included.
  """

  def __init__(self, tracker: Tracker, variables, *, streams: int = 4, chunk: int = 8):
    """`streams`: sequences in lockstep; `chunk`: frames per program call."""
    self._variables, self._streams, self._chunk = jax.device_put(variables), streams, chunk
    self._init = jax.jit(jax.vmap(tracker.init, in_axes=(None, 0, 0)))
    self._run = jax.jit(jax.vmap(tracker.chunk, in_axes=(None, 0, 0)), donate_argnums=1)
    self._warm = set()
    self.frames_tracked, self.seconds = 0, 0.0

  @property
  def fps(self) -> float:
    return self.frames_tracked / self.seconds if self.seconds else float("nan")

  def run(self, streams: Iterable[Stream]) -> Iterator[tuple[str, Result]]:
    """Yields (name, result) as groups finish. Streams of one frame size go together, the longest first.

    Raises:
      DataError: a first box outside its frame, or a frame that cannot be read.
    """
    groups: dict[tuple[int, int], list[Stream]] = {}
    for stream in streams:
      shape = stream.frames[0].shape
      check_box(stream.box, shape, stream.name)
      groups.setdefault(shape, []).append(stream)
    total = sum(len(stream.frames) for group in groups.values() for stream in group)
    with tqdm(total=total, unit="frame", desc="track", mininterval=1, dynamic_ncols=True) as progress:
      for shape in sorted(groups):
        ordered = sorted(groups[shape], key=lambda s: (-len(s.frames), s.name))
        for i in range(0, len(ordered), self._streams):
          yield from self._lockstep(ordered[i:i + self._streams], progress)

  def _lockstep(self, group: list[Stream], progress) -> Iterator[tuple[str, Result]]:
    """Streams that have ended, and lanes without one, repeat their last frame; what they put out is dropped."""
    lanes = group + [group[-1]] * (self._streams - len(group))
    readers = [iter(stream.frames) for stream in group]
    last = [next(reader) for reader in readers]
    started = time.perf_counter()
    fill = lambda images: np.stack(images + [images[-1]] * (self._streams - len(group)))
    state = self._init(self._variables, fill(last), jnp.asarray(np.stack([s.box for s in lanes]), jnp.float32))
    outputs = []
    length = max(len(stream.frames) for stream in group)
    for start in range(1, length, self._chunk):
      frames = []
      for t in range(start, start + self._chunk):
        for i, stream in enumerate(group):
          if t < len(stream.frames):
            last[i] = _same_size(next(readers[i]), last[i], stream.name, t)
        frames.append(fill(last))
      state, out = self._run(self._variables, state, np.stack(frames, axis=1))
      outputs.append(jax.device_get(out))
      done = sum(max(0, min(start + self._chunk, len(s.frames)) - start) for s in group)
      progress.update(done)
      if last[0].shape in self._warm:
        self.frames_tracked += done
        self.seconds += time.perf_counter() - started
      self._warm.add(last[0].shape)
      started = time.perf_counter()
    progress.update(len(group))
    for i, stream in enumerate(group):
      yield stream.name, _result(stream, [jax.tree.map(lambda x, i=i: x[i], out) for out in outputs])


def _same_size(frame, previous, name, t):
  if frame.shape != previous.shape:
    raise DataError(f"{name}: frame {t} is {frame.shape[1]}x{frame.shape[0]} pixels, the ones before were "
                    f"{previous.shape[1]}x{previous.shape[0]}")
  return frame


def _result(stream: Stream, outputs) -> Result:
  """The first frame's result is the given box."""
  count = len(stream.frames) - 1
  join = lambda field: np.concatenate([getattr(out, field) for out in outputs])[:count] if outputs else []
  boxes = np.concatenate([[stream.box], np.reshape(join("box"), (-1, 4))])
  present = np.concatenate([[True], join("present")]).astype(bool)
  return Result(boxes, present=present, score=np.concatenate([[1.0], join("score")]))
