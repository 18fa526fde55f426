"""Random streams of a simulated sequence: one per purpose, so that parts do not disturb one another."""

import numpy as np

_PURPOSES = ("motion", "scene", "target", "distractors", "sensor", "temporal_noise", "size",
             "background")


def stream(seed: int, index: int, purpose: str) -> np.random.Generator:
  """The generator for one purpose of one sequence; a pure function of its arguments.

  Args:
    seed: of the data set, >= 0.
    index: of the sequence in the data set, >= 0.
    purpose: one of "motion", "scene", "target", "distractors", "sensor", "temporal_noise", "size",
      "background".

  Raises:
    ValueError: an unknown purpose, or a negative seed or index.
  """
  entropy = np.random.SeedSequence([seed, index], spawn_key=(_PURPOSES.index(purpose),))
  return np.random.Generator(np.random.Philox(entropy))
