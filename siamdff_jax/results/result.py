"""A tracker's output on one sequence, and the file that we write for it."""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from input_pipeline.files import write_atomically


@dataclasses.dataclass(frozen=True, init=False)
class Result:
  """A tracker's output on one sequence of T frames.

  Attributes:
    boxes: float64 [T, 4], xywh in pixels of the original frame, 0-based; NaN rows where the tracker says absent.
    present: bool [T]. False exactly where `boxes` is NaN; a box given together with False is dropped. Left out, it is
      taken from the boxes.
    score: float64 [T], the tracker's own confidence (NaN where it has none), or None.
    starts: the frames in which the tracker was given the true box, ascending: (0,) in one-pass runs, more in
      reset-based runs, where the frames between a failure and the next start are absent.
    times: float64 [T], seconds of the frames since the first, or None where they are not known.
    incomplete: None, or of a sequence that was not tracked as a whole: how many frames were "tracked" of how many
      "announced" (those that are missing in between count as absent), and "why".
  """

  boxes: np.ndarray
  present: np.ndarray
  score: np.ndarray | None
  starts: tuple[int, ...]
  times: np.ndarray | None
  incomplete: Mapping[str, int | str] | None

  def __init__(self, boxes: ArrayLike, present: ArrayLike | None = None, score: ArrayLike | None = None,
               starts: Iterable[int] = (0,), times: np.ndarray | None = None,
               incomplete: Mapping[str, int | str] | None = None) -> None:
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    there = np.ones(len(boxes), bool) if present is None else np.array(present, bool).reshape(-1)
    scores = None if score is None else np.array(score, np.float64).reshape(-1)
    starts = tuple(int(t) for t in starts)
    if len(there) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
      raise ValueError(f"{len(boxes)} boxes, {len(there)} presence flags and the scores differ in number")
    if starts[:1] != (0,) or any(a >= b for a, b in itertools.pairwise((*starts, max(len(boxes), 1)))):
      raise ValueError(f"the starts are {starts}, expected ascending frames from 0 on, below {len(boxes)}")
    there &= ~np.isnan(boxes).any(axis=1)
    boxes[~there] = np.nan
    if np.isinf(boxes).any() or (scores is not None and np.isinf(scores).any()):
      raise ValueError("a box or a score is infinite, expected numbers or NaN")
    fields = {"boxes": boxes, "present": there, "score": scores, "starts": starts, "times": times,
              "incomplete": incomplete}
    for name, value in fields.items():
      object.__setattr__(self, name, value)  # The class is frozen.

  def __len__(self) -> int:
    return len(self.boxes)


def write(path: str | os.PathLike[str], result: Result, init: Iterable[float] | None = None,
          made_of: Mapping[str, str] | None = None) -> None:
  """Writes a result as Anti-UAV JSON, whole or not at all. What `read` gives back is equal to the last bit.

  Args:
    path: the .json file; its folder must exist.
    result: what to write; its `starts` only where they are not (0,).
    init: the box [x, y, w, h] that the tracker was started with; None takes the first box.
    made_of: what the result depends on besides `init`, see `reading.read_made_of`.
  """
  boxes = [box.tolist() if there else [] for box, there in zip(result.boxes, result.present, strict=True)]
  first = boxes[0] if boxes else []
  content: dict[str, Any] = {
      "res": boxes,
      "score": None if result.score is None else [None if math.isnan(s) else s for s in result.score.tolist()],
      "present": result.present.tolist(),
      "init": first if init is None else [float(x) for x in init],
  }
  if result.times is not None:
    content["time"] = np.asarray(result.times, np.float64).tolist()
  if result.incomplete:  # File names in it need not be text.
    why = str(result.incomplete["why"]).encode(errors="backslashreplace").decode()
    content["incomplete"] = {**result.incomplete, "why": why}
  if result.starts != (0,):
    content["starts"] = list(result.starts)
  if made_of:
    content["made_of"] = dict(made_of)
  write_atomically(path, json.dumps(content, allow_nan=False).encode() + b"\n")
