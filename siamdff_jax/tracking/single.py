"""One target through one input: what `scripts/track.py` does."""

import dataclasses
import logging
import os
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from input_pipeline import datasets
from input_pipeline.datasets import grammar
from input_pipeline.errors import UserError
from input_pipeline.frames import ChangedFrames
from input_pipeline.units import is_normalised
from siamdff_jax import results
from siamdff_jax.results import Result
from siamdff_jax.tracking import outputs, video
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.reading import BrokenStreams, Stream, check_box, frame_shape
from siamdff_jax.tracking.runner import Runner
from siamdff_jax.tracking.settings import with_settings

_log = logging.getLogger(__name__)


def track_input(checkpoint: str, source: str, box: list[str], out: str, settings: Sequence[str] = ()):
  """Tracks and writes boxes.json and track.mp4.

  What is known when the input breaks, or when the process is told to stop, is written too: boxes.json then has a member
  "incomplete", see `Result`.

  Args:
    checkpoint: see `trained.find`.
    source: a video file or a folder of images.
    box: four numbers as text, xywh in pixels of the first frame.
    out: the folder to write to.
    settings: of the tracker, see `settings.with_settings`.

  Raises:
    UserError: anything the user gave that does not work; and when all is written, that frames could not be read.
  """
  start = _parse(box)
  stream = Stream(os.path.basename(os.path.abspath(source)), datasets.open_frames(source), start)
  shape = frame_shape(stream)
  _check_start(start, shape, stream.name)
  with outputs.prepared(out, len(stream.frames)) as places, outputs.stopped_by_signals() as check_stop:
    tracker, variables = load_tracker(checkpoint)
    runner = Runner(with_settings(tracker, settings), variables, streams=1, chunk=1)
    frames = _Watched(stream.frames, check_stop)
    result, broken = _track(runner, stream._replace(shape=shape, frames=frames), places)
    check_stop()
    video_note = _write_video(places, result, stream)
  print(f"{_summary(result, runner)}; boxes in {places.boxes}, {video_note}")
  if broken:
    raise UserError(f"{broken}; the boxes of these are in {places.boxes}, which is marked as incomplete")


class _Watched(ChangedFrames):
  """The frames of another source; before each of them `check` is called."""

  def __init__(self, frames, check):
    super().__init__(frames, lambda frame, t: frame)
    self._check = check

  def readable(self):
    for frame in super().readable():
      self._check()
      yield frame


def _parse(box) -> np.ndarray:
  """float64 [4] xywh."""
  where = f"--box={','.join(box)}"
  try:
    start = np.array([grammar.number(v.strip()) for v in box], np.float64)
  except (TypeError, ValueError):
    start = np.zeros(0)
  if start.shape != (4,) or not np.isfinite(start).all():
    raise UserError(f"{where}: expected four numbers x,y,w,h in pixels")
  if is_normalised(start):
    raise UserError(f"{where}: looks like normalised coordinates (0..1), expected x,y,w,h in pixels")
  return start


def _check_start(start, shape, where):
  """Refuses a box that cannot be one, and warns of one that looks like two corners."""
  check_box(start, shape, where)
  (x, y, w, h), (height, width) = start, shape
  if w > width or h > height:
    raise UserError(f"{where}: the box {start.tolist()} is larger than the frame of {width}x{height} pixels, expected "
                    "x,y,w,h")
  if (x + w > width or y + h > height) and x < w <= width and y < h <= height:
    _log.warning("%s: the box %s, taken as x,y,w,h, sticks out of the frame of %dx%d pixels; if it is x1,y1,x2,y2, "
                 "then --box=%g,%g,%g,%g is right", where, start.tolist(), width, height, x, y, w - x, h - y)


def _track(runner, stream, places) -> tuple[Result, UserError | None]:
  """The result, whose boxes are written then, and what is wrong with the input.

  What is known is written too when the process ends before; a signal does not interrupt that, as it comes only once.
  """
  result = broken = None
  try:
    try:
      for _, found in runner.run([stream]):
        result = found
    except BrokenStreams as error:
      if stream.name not in error.partial:
        raise
      result, broken = error.partial[stream.name], error
    _write_boxes(places, result, stream)
  except BaseException as error:
    known = result or runner.unfinished(outputs.reason(error)).get(stream.name)
    if known:
      _write_boxes(places, known, stream)
      _log.warning("%s: holds the boxes of %d of %d frames", places.boxes, len(known), len(stream.frames))
    raise
  return result, broken


def _write_boxes(places, result, stream):
  times = stream.frames.times()
  if times is not None:
    result = dataclasses.replace(result, times=times[:len(result)])
  places.clear()
  results.write(places.boxes, result, init=stream.box)


def _write_video(places, result, stream) -> str:
  """What to tell of the video."""
  times, count = stream.frames.times(), len(stream.frames)
  try:
    with tqdm(stream.frames.readable(), desc="video", unit="frame", total=count, mininterval=1) as frames:
      video.write(places.video, frames, result, times)
  except UserError as error:
    raise UserError(f"{error}; the boxes are in {places.boxes}") from error
  pace = f"{video.schedule(times, count)[0]:.4g} frames/s"
  return f"video in {places.video} at {pace}{'' if times is not None else ', as the input does not say its own'}"


def _summary(result, runner) -> str:
  text = f"{len(result)} frames at {runner.fps:.1f} frames/s, target present in {int(result.present.sum())}"
  if result.incomplete:
    text += f", {len(result) - result.incomplete['tracked']} could not be read"
  return text
