"""Small made-up comparisons for the tests of the report."""

import numpy as np

from input_pipeline.frames import ArrayFrames
from input_pipeline.sequences import FrameShape, from_labels
from siamdff_jax.evaluation import comparison
from siamdff_jax.results import Result

SHAPE = FrameShape(128, 160)
HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert('2')">{{ 7 * 7 }} & 'quotes' \\ "more\""""


def sequences_of(count, frames=30, shape=SHAPE, absent=True, attributes=("SV", "OC"), pictures=False):
  """Targets of 10 x 8 px that move to the right; with `absent`, away in frames 5 and 6."""
  rng = np.random.default_rng(0)
  out = []
  for i in range(count):
    x = 10 + np.linspace(0, shape.columns - 60, frames)
    boxes = np.stack([x, np.full(frames, 20.0 + 5 * i), np.full(frames, 10.0), np.full(frames, 8.0)], 1)
    if absent:
      boxes[5:7] = 0
    source = ArrayFrames(rng.integers(60, 200, (frames, *shape), np.uint8)) if pictures else None
    out.append(from_labels(f"sequence {i}", source, boxes, None, "test", attributes[:1 + i % 2]))
  return out


def results_of(sequences, trackers):
  """tracker -> sequence -> result.

  Each tracker is worse than the one before; all but the first lose the target, though not in the fourth sequence.
  """
  out = {}
  for rank, tracker in enumerate(trackers):
    out[tracker] = {}
    for i, sequence in enumerate(sequences):
      rng = np.random.default_rng([rank, i])
      boxes = sequence.boxes + rng.normal(0, 0.3 + 0.3 * rank, sequence.boxes.shape) * (1, 1, 0, 0)
      boxes[:, 2:] = 10, 8
      if rank and i != 3:
        boxes[len(boxes) // (rank + 1) + i:, 1] += 30
      boxes[0] = sequence.boxes[0]
      out[tracker][sequence.name] = Result(boxes, None, rng.uniform(0.3 * sequence.visible, 1))
  return out


def comparison_of(sequences, results, protocol="plain"):
  """The comparison of `results_of`, by the project's own code: main score the area under the success curve."""
  return comparison.compare(protocol, sequences, {tracker: [run] for tracker, run in results.items()})
