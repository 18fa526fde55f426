"""OpenCV's classical trackers behind the same interface, to compare with."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import cv2
import numpy as np
from tqdm import tqdm

from siamdff_jax.evaluation import metrics
from siamdff_jax.evaluation.results import Result
from siamdff_jax.tracking.lockstep import RESET_AFTER
from siamdff_jax.tracking.reading import Stream, check_stream, checked_frames, frame_shape

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

    Raises:
      DataError: a first box outside its frame, or a frame that cannot be read.
      ValueError: a reset-based run of a stream without one truth per frame.
    """
    streams = sorted(streams, key=lambda s: (-len(s.frames), s.name))
    total, lock, stop = sum(len(stream.frames) for stream in streams), threading.Lock(), threading.Event()
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
        names = {pool.submit(self._track, stream, seen): stream.name for stream in streams}
        for done, future in enumerate(as_completed(names), 1):
          result = future.result()
          self.frames_tracked += len(result)
          self.seconds = before + time.perf_counter() - started
          progress.set_postfix_str(f"{done}/{len(streams)} sequences", refresh=False)
          yield names[future], result
      finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads_before)

  def _track(self, stream: Stream, seen: Callable[[], bool]) -> Result:
    """`seen` is called after every frame; what is found is of no use any more once it returns False."""
    shape = frame_shape(stream)
    check_stream(stream, shape, self._reset)
    boxes, starts, tracker, due = [], [], None, 0
    for t, frame in enumerate(checked_frames(stream, shape)):
      image = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
      truth = stream.truth[t] if self._reset and t else stream.box
      visible = truth[2] > 0 and truth[3] > 0
      box = [np.nan] * 4
      if tracker is not None:
        found, answer = tracker.update(image)
        box = answer if found else box
        if self._reset and visible and not metrics.iou([box], [truth])[0] > 0:
          tracker, due = None, t + RESET_AFTER
      elif t >= due and visible:
        tracker, box = self._started(image, truth), truth
        starts.append(t)
      boxes.append(box)
      if not seen():
        break
    return Result(boxes, starts=tuple(starts))

  def _started(self, image, box):
    tracker = self._create()
    x, y, w, h = (round(float(v)) for v in box)  # OpenCV takes whole pixels here.
    tracker.init(image, [x, y, max(w, _SMALLEST), max(h, _SMALLEST)])
    return tracker
