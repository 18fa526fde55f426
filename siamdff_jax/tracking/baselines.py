"""OpenCV's classical trackers behind the same interface, to compare with."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Ordered
from concurrent.futures import ThreadPoolExecutor, as_completed

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.errors import UserError
from input_pipeline.geometry import iou_xywh
from siamdff_jax.results import Result
from siamdff_jax.tracking.lockstep import RESET_AFTER
from siamdff_jax.tracking.reading import BrokenStreams, Notes, Stream, check_stream, frames_to_track

_log = logging.getLogger(__name__)

# OpenCV's MIL is not among them: its random numbers start from the clock, and on targets of 3x3 pixels it never ends.
BASELINES = {"KCF": cv2.TrackerKCF.create, "CSRT": cv2.TrackerCSRT.create}
_SMALLEST = 2  # Pixels per side; CSRT cannot start from less.


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

      def seen():
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
    boxes, starts, update, due = [], [], None, 0
    for t, (frame, shows) in enumerate(frames_to_track(stream, shape, notes, self._reset)):
      truth = stream.truth[t] if self._reset and t else stream.box
      visible = truth[2] > 0 and truth[3] > 0
      box = [np.nan] * 4
      if update is not None:
        found, answer = update(_colours(frame)) if shows else (False, None)
        box = answer if found else box
        if self._reset and visible and not iou_xywh(np.asarray(box, np.float64), np.asarray(truth, np.float64)) > 0:
          update, due = None, t + RESET_AFTER
      elif shows and t >= due and visible:
        update, box = self._started(_colours(frame), truth, stream.name), truth
        starts.append(t)
      boxes.append(box)
      if not seen():
        break
    result = Result(boxes, starts=tuple(starts), incomplete=notes.incomplete(len(boxes))) if starts else None
    return result, notes

  def _started(self, image, box, where: str) -> Callable[[np.ndarray], tuple[bool, Ordered[float] | None]]:
    """What is to be called with every further frame. OpenCV raises where it has too little of the target to work on."""
    tracker = self._create()
    x, y, w, h = (round(float(v)) for v in box)  # OpenCV takes whole pixels here.
    try:
      tracker.init(image, [x, y, max(w, _SMALLEST), max(h, _SMALLEST)])
    except cv2.error:
      _log.warning("%s: OpenCV's %s cannot start from the box %s, the target counts as absent", where, self._name,
                   [float(v) for v in box])
      return lambda image: (False, None)

    def update(image):
      try:
        return tracker.update(image)
      except cv2.error:
        return False, None

    return update


def _colours(frame: np.ndarray) -> np.ndarray:
  return cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
