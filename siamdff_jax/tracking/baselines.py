"""OpenCV's classical trackers behind the same interface, to compare with."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Ordered
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import UserError
from input_pipeline.geometry import iou_xywh
from siamdff_jax.results import Result
from siamdff_jax.tracking.lockstep import RESET_AFTER
from siamdff_jax.tracking.reading import Notes, frames_to_track
from siamdff_jax.tracking.streams import BrokenStreams, Stream, check_stream

_log = logging.getLogger(__name__)

# OpenCV's MIL is not among them: its random numbers start from the clock, and on targets of 3x3 pixels it never ends.
BASELINES: dict[str, Callable[[], Any]] = {"KCF": cv2.TrackerKCF.create, "CSRT": cv2.TrackerCSRT.create}
_SMALLEST = 2  # Pixels per side; CSRT cannot start from less.

# A tracker that has started: takes every further frame uint8 [H, W, 3], gives the box xywh or, where it fails, None.
_Update = Callable[[np.ndarray], Ordered[float] | None]


class BaselineRunner:
  """Like `runner.Runner`, with OpenCV's tracker `name` in its default settings: one stream per processor core.

  Attributes:
    frames_tracked, seconds: of all calls so far, all cores together; decoding included.
  """

  def __init__(self, name: str, *, reset: bool = False):
    """`reset`: start anew after failures, as `lockstep` describes it."""
    self._name, self._create, self._reset = name, BASELINES[name], reset
    self.frames_tracked, self.seconds = 0, 0.0

  @property
  def fps(self) -> float:
    """Frames per second of all streams together; NaN before the first."""
    return self.frames_tracked / self.seconds if self.seconds else float("nan")

  def run(self, streams: Iterable[Stream]) -> Iterator[tuple[str, Result]]:
    """Yields (name, result) as streams end. A frame on which OpenCV reports failure counts as absent.

    So does one that cannot be read or that shows nothing (see `reading.frames_to_track`).

    Raises:
      BrokenStreams: when all others are done: first boxes outside their frames, frames that cannot be read.
      ValueError: a reset-based run of a stream without one truth per frame.
    """
    streams = sorted(streams, key=lambda s: (-len(s.frames), s.name))
    total, lock, stop = sum(len(stream.frames) for stream in streams), threading.Lock(), threading.Event()
    errors, partial = {}, {}
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), self._name)
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with tqdm(total=total, unit="frame", desc=self._name, mininterval=1, dynamic_ncols=True) as progress:

      def seen() -> bool:
        with lock:
          progress.update()
        return not stop.is_set()

      try:
        started, before = time.perf_counter(), self.seconds
        found = {pool.submit(self._track, stream, seen): stream for stream in streams}
        for done, future in enumerate(as_completed(found), 1):
          stream, (result, notes) = found[future], future.result()
          self.frames_tracked += len(result) if result else 0
          self.seconds = before + time.perf_counter() - started
          progress.set_postfix_str(f"{done}/{len(streams)} sequences", refresh=False)
          notes.say(stream.name, len(stream.frames))
          error = notes.broken(len(stream.frames))
          if error is None:
            assert result is not None  # What could not start has an error.
            yield stream.name, result
            continue
          errors[stream.name] = error
          if result:
            partial[stream.name] = result
      finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads_before)
    if errors:
      raise BrokenStreams(dict(sorted(errors.items())), partial)

  def _track(self, stream: Stream, seen: Callable[[], bool]) -> tuple[Result | None, Notes]:
    """The result, None where it could not start, and what was noticed.

    `seen` is called after every frame; what is found is of no use any more once it returns False.
    """
    try:
      shape = check_stream(stream, self._reset)
    except UserError as error:
      return None, Notes(error, unreadable=len(stream.frames))
    notes = Notes()
    boxes: list[np.ndarray | Ordered[float]] = []
    starts, due = [], 0
    update: _Update | None = None
    for t, (frame, shows) in enumerate(frames_to_track(stream, shape, notes, self._reset)):
      truth = stream.start(t) if self._reset else stream.box
      visible = truth[2] > 0 and truth[3] > 0
      box: np.ndarray | Ordered[float] = [np.nan] * 4
      if update is not None:
        answer = update(_colours(frame)) if frame is not None and shows else None
        box = box if answer is None else answer
        if self._reset and visible and not iou_xywh(np.asarray(box, np.float64), np.asarray(truth, np.float64)) > 0:
          update, due = None, t + RESET_AFTER
      elif frame is not None and shows and t >= due and visible:
        update, box = self._started(_colours(frame), truth, stream.name), truth
        starts.append(t)
      boxes.append(box)
      if not seen():
        break
    if not starts:
      return None, notes
    return Result(np.array(boxes, np.float64), starts=tuple(starts), incomplete=notes.incomplete(len(boxes))), notes

  def _started(self, image: np.ndarray, box: np.ndarray, where: str) -> _Update:
    """Starts a tracker. OpenCV raises where it has too little of the target to work on."""
    tracker = self._create()
    x, y, w, h = (round(float(v)) for v in box)  # OpenCV takes whole pixels here.
    try:
      tracker.init(image, [x, y, max(w, _SMALLEST), max(h, _SMALLEST)])
    except cv2.error:
      _log.warning("%s: OpenCV's %s cannot start from the box %s, the target counts as absent", where, self._name,
                   [float(v) for v in box])
      return lambda image: None

    def update(image: np.ndarray) -> Ordered[float] | None:
      try:
        found, answer = tracker.update(image)
      except cv2.error:
        return None
      return answer if found else None

    return update


def _colours(frame: np.ndarray) -> np.ndarray:
  return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
