"""OpenCV's classical trackers behind the same interface, to compare with."""

import time
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from siamdff_jax.evaluation.results import Result
from siamdff_jax.tracking.runner import Stream, check_box

BASELINES = {"KCF": cv2.TrackerKCF.create, "CSRT": cv2.TrackerCSRT.create}


class BaselineRunner:
  """Like `runner.Runner`, with OpenCV's tracker `name` in its default settings, one stream after the other."""

  def __init__(self, name: str):
    self._name, self._create = name, BASELINES[name]
    self.frames_tracked, self.seconds = 0, 0.0

  @property
  def fps(self) -> float:
    return self.frames_tracked / self.seconds if self.seconds else float("nan")

  def run(self, streams: Iterable[Stream]) -> Iterator[tuple[str, Result]]:
    """Yields (name, result). A frame on which OpenCV reports failure counts as absent."""
    streams = list(streams)
    total = sum(len(stream.frames) for stream in streams)
    with tqdm(total=total, unit="frame", desc=self._name, mininterval=1, dynamic_ncols=True) as progress:
      for stream in streams:
        boxes = []
        started = time.perf_counter()
        for frame in stream.frames:
          boxes.append(self._first(stream, frame) if not boxes else self._next(frame))
          progress.update()
        self.seconds += time.perf_counter() - started
        self.frames_tracked += len(boxes)
        boxes = np.array(boxes, np.float64)
        yield stream.name, Result(boxes, present=~np.isnan(boxes).any(axis=1))

  def _first(self, stream, frame):
    check_box(stream.box, frame.shape, stream.name)
    self._tracker = self._create()
    # OpenCV takes whole pixels here.
    self._tracker.init(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), [round(float(v)) for v in stream.box])
    return stream.box

  def _next(self, frame):
    found, box = self._tracker.update(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    return box if found else [np.nan] * 4
