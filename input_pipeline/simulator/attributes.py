"""The benchmark's attributes, computed from what happened in a sequence."""

import dataclasses

import numpy as np

from input_pipeline.simulator.measured import REFERENCE_WIDTH

NAMES = ("TC", "OV", "SV", "FM", "OC", "DBC", "TS", "SS", "MS", "NS")
_ENOUGH = 0.05  # Share of the visible frames in which a thing has to hold, where a single frame is not enough.


@dataclasses.dataclass
class Events:
  """What the renderer saw, per frame.

  Attributes:
    contrast: float64 [T], |target - background| / local deviation (noise included); NaN where nothing was drawn.
    clutter: float64 [T], deviation of the background around the target in display grey levels; NaN likewise.
    in_view: float64 [T], share of the silhouette inside the view, 0..1.
    uncovered: float64 [T], share of the silhouette not behind something, 0..1.
  """

  contrast: np.ndarray
  clutter: np.ndarray
  in_view: np.ndarray
  uncovered: np.ndarray

  @classmethod
  def empty(cls, num_frames: int) -> "Events":
    """Nothing seen yet."""
    unknown = np.full(num_frames, np.nan)
    return cls(unknown, unknown.copy(), np.zeros(num_frames), np.ones(num_frames))


def sequence_attributes(boxes: np.ndarray, visible: np.ndarray, events: Events, camera: np.ndarray,
                        width: int) -> tuple[str, ...]:
  """Names of the attributes that hold; the names are Anti-UAV410's, the definitions are our choice.

  - TC, thermal crossover: the contrast is below 1.5 local deviations in at least 5 % of the visible frames.
  - OV, out of view: some frame has less than half of the target inside the view.
  - SV, scale variation: sqrt(wh) leaves the range from half to twice that of the first frame.
  - FM, fast motion: the centre moves more than 20 px (of a 640-px-wide frame) between two visible neighbours.
  - OC, occlusion: some frame has less than three quarters of the target uncovered.
  - DBC, dynamic background clutter: the background around the target deviates by more than 12 grey levels in at
    least 5 % of the visible frames while it moves through the view (more than one pixel in a typical frame).
  - TS, SS, MS, NS, tiny, small, medium, normal size: sqrt(wh) (of a 640-px-wide frame) is in [0, 10), [10, 30),
    [30, 50), [50, inf) px in at least 5 % of the visible frames.

  Args:
    boxes: [T, 4] xywh labels.
    visible: bool [T] labels.
    events: what the renderer saw.
    camera: [T, 4], the plan's camera.
    width: of the view in pixels.
  """
  unit = width / REFERENCE_WIDTH
  boxes = boxes.astype(np.float64)
  sizes = np.sqrt(boxes[:, 2] * boxes[:, 3]) / unit
  centres = boxes[:, :2] + boxes[:, 2:] / 2
  moved = np.linalg.norm(np.diff(centres, axis=0), axis=1) / unit
  both = visible[1:] & visible[:-1]
  pan = np.linalg.norm(np.diff(camera[:, :2], axis=0), axis=1)

  def often(holds: np.ndarray) -> bool:
    return bool(np.mean(holds[visible]) >= _ENOUGH)

  holds = {
      "TC": often(events.contrast < 1.5),
      "OV": bool((events.in_view < 0.5).any()),
      "SV": bool(((sizes > 2 * sizes[0]) | (sizes < sizes[0] / 2))[visible].any()),
      "FM": bool((moved[both] > 20).any()),
      "OC": bool((events.uncovered < 0.75).any()),
      "DBC": often(events.clutter > 12) and len(pan) > 0 and float(np.median(pan)) > 1,
      "TS": often(sizes < 10),
      "SS": often((sizes >= 10) & (sizes < 30)),
      "MS": often((sizes >= 30) & (sizes < 50)),
      "NS": often(sizes >= 50),
  }
  return tuple(name for name in NAMES if holds[name])
