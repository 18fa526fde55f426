"""A tracker's output on one sequence, and the file that we write for it."""

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np

from siamdff_jax.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Result:
  """A tracker's output on one sequence of T frames.

  Attributes:
    boxes: float64 [T, 4], xywh in pixels of the original frame, 0-based; NaN rows where the tracker says absent.
    present: bool [T]. False exactly where `boxes` is NaN; a box given together with False is dropped. None
      takes it from the boxes.
    score: float64 [T], the tracker's own confidence (NaN where it has none), or None.
    starts: the frames in which the tracker was given the true box, ascending: (0,) in one-pass runs, more in
      reset-based runs, where the frames between a failure and the next start are absent.
    times: float64 [T], seconds of the frames since the first, or None where they are not known.
    incomplete: None, or of a sequence that was not tracked as a whole: how many frames were "tracked" of how many
      "announced" (those that are missing in between count as absent), and "why".
  """

  boxes: np.ndarray
  present: np.ndarray | None = None
  score: np.ndarray | None = None
  starts: tuple[int, ...] = (0,)
  times: np.ndarray | None = None
  incomplete: Mapping[str, int | str] | None = None

  def __post_init__(self):
    boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
    said = ~np.isnan(boxes).any(axis=1)
    present = said if self.present is None else np.array(self.present, bool).reshape(-1)
    score = None if self.score is None else np.array(self.score, np.float64).reshape(-1)
    starts = tuple(int(t) for t in self.starts)
    if len(present) != len(boxes) or (score is not None and len(score) != len(boxes)):
      raise ValueError(f"{len(boxes)} boxes, {len(present)} presence flags and the scores differ in number")
    if starts[:1] != (0,) or any(a >= b for a, b in zip(starts, (*starts[1:], max(len(boxes), 1)))):
      raise ValueError(f"the starts are {starts}, expected ascending frames from 0 on, below {len(boxes)}")
    present &= said
    boxes[~present] = np.nan
    if np.isinf(boxes).any() or (score is not None and np.isinf(score).any()):
      raise ValueError("a box or a score is infinite, expected numbers or NaN")
    object.__setattr__(self, "boxes", boxes)
    object.__setattr__(self, "present", present)
    object.__setattr__(self, "score", score)
    object.__setattr__(self, "starts", starts)

  def __len__(self) -> int:
    return len(self.boxes)


def write(path, result: Result, init=None, made_of: Mapping[str, str] | None = None):
  """Writes a result as Anti-UAV JSON, whole or not at all. What `read` gives back is equal to the last bit.

  Args:
    path: the .json file; its folder must exist.
    result: what to write; its `starts` only where they are not (0,).
    init: the box [x, y, w, h] that the tracker was started with; None takes the first box.
    made_of: what the result depends on besides `init`, see `reading.read_made_of`.
  """
  boxes = [box.tolist() if there else [] for box, there in zip(result.boxes, result.present, strict=True)]
  first = boxes[0] if boxes else []
  content = {
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
