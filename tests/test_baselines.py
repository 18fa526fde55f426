"""OpenCV's trackers behind the runner's interface: against the same trackers in a plain loop."""

import numpy as np
import pytest

from input_pipeline.errors import UserError
from input_pipeline.frames import ArrayFrames
from siamdff_jax.tracking.baselines import BASELINES, BaselineRunner
from siamdff_jax.tracking.streams import Stream

NAN = [np.nan] * 4


def sequence(seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
  """A bright textured target of 24x16 that moves over noise, and its boxes."""
  rng = np.random.default_rng(seed)
  frames, texture = rng.normal(90, 6, (length, 120, 160)), rng.normal(150, 30, (16, 24))
  boxes = np.array([[30.3 + 2 * t, 40 + t, 24, 16] for t in range(length)])
  for frame, (x, y, w, h) in zip(frames, boxes.astype(int), strict=True):
    frame[y:y + h, x:x + w] = texture
  return frames.clip(0, 255).astype(np.uint8), boxes


def overlap(a, b):
  """Whether two boxes xywh overlap; False where one is NaN."""
  return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def by_hand(name, frames, truth, reset=False):
  boxes, starts, tracker, due = [], [], None, 0
  for t, frame in enumerate(frames):
    image, answer = np.stack([frame] * 3, -1), NAN
    if tracker:
      found, box = tracker.update(image)
      answer = box if found else NAN
      if reset and truth[t][2] > 0 and not overlap(answer, truth[t]):
        tracker, due = None, t + 5
    elif t >= due and truth[t][2] > 0:
      tracker, answer = BASELINES[name](), truth[t]
      tracker.init(image, [round(v) for v in truth[t]])
      starts.append(t)
    boxes.append(answer)
  return np.array(boxes, float), tuple(starts)


@pytest.mark.parametrize("name", BASELINES)
def test_equals_a_plain_loop(name):
  """Several at a time; results neither depend on the threads nor on what a thread did before."""
  made = {f"s{i}": sequence(i, 4 + i % 3) for i in range(6)}
  runner = BaselineRunner(name)
  results = dict(runner.run([Stream(key, ArrayFrames(frames), boxes[0]) for key, (frames, boxes) in made.items()]))
  assert results.keys() == made.keys() and runner.frames_tracked == 30 and runner.fps > 0
  for key, (frames, boxes) in made.items():
    np.testing.assert_array_equal(results[key].boxes, by_hand(name, frames, boxes)[0])
    assert results[key].starts == (0,)


def test_resets():
  frames, truth = sequence(1, 30)
  truth[6] += (60, 0, 0, 0)
  truth[10:13] = 0
  truth[20] += (0, 50, 0, 0)
  (_, result), = BaselineRunner("KCF", reset=True).run([Stream("s", ArrayFrames(frames), truth[0], truth)])
  boxes, starts = by_hand("KCF", frames, truth, reset=True)
  assert result.starts == starts == (0, 13, 25)
  np.testing.assert_array_equal(result.boxes, boxes)
  assert not result.present[7:13].any() and result.present[6]


def test_errors():
  frames, boxes = sequence(0, 5)
  with pytest.raises(UserError, match="s: the box"):
    list(BaselineRunner("KCF").run([Stream("s", ArrayFrames(frames), np.array([500, 5, 10, 10.0]))]))
  with pytest.raises(ValueError, match="needs the truth"):
    list(BaselineRunner("KCF", reset=True).run([Stream("s", ArrayFrames(frames), boxes[0])]))


def test_any_box_that_is_allowed():
  """Tiny, and half outside of the frame."""
  frames, _ = sequence(0, 3)
  for name in BASELINES:
    for box in ([20, 20, 0.4, 0.4], [-10, -5, 24, 16], [150, 110, 19, 19]):
      (_, result), = BaselineRunner(name).run([Stream("s", ArrayFrames(frames), np.array(box, float))])
      assert len(result) == 3
