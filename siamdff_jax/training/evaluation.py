"""Evaluation in training: the averaged network tracks whole sequences, by the code of `scripts/evaluate.py`."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from input_pipeline import datasets
from input_pipeline.errors import UserError
from input_pipeline.sequences import Sequence
from siamdff_jax.evaluation import protocols
from siamdff_jax.models.build import build
from siamdff_jax.results import Result
from siamdff_jax.tracking import configured
from siamdff_jax.tracking.runner import Runner, Stream
from siamdff_jax.tracking.tracker import Tracker
from siamdff_jax.training.state import TrainState


class Evaluation:
  """Tracks the sequences of `config.evaluation` and scores them; several processes share the sequences.

  Args:
    config: the whole config; `config.evaluation.root` must be set.

  Raises:
    UserError: data at fault, an unknown protocol or metric, or a network that cannot track.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    self._config = config.evaluation
    self._sequences = datasets.load_matching(self._config.format, self._config.root, self._config.only)
    for sequence in self._sequences:
      if not sequence.visible[0]:
        raise UserError(f"{sequence.name}: the target is absent in the first frame, expected a box to start from")
    self._protocol = self._config.protocol or protocols.of_format(self._config.format)
    self._score({s.name: Result(s.boxes) for s in self._sequences})  # A wrong name is to be known before the training.
    try:
      tracker = Tracker(build(config.model), configured.of_config(config.tracker)[0])
    except UserError as error:
      raise UserError(f"config.evaluation.root is set, but {error}") from error
    self._runner = Runner(tracker, None, streams=self._config.streams, progress=False)

  @property
  def sequences(self) -> list[Sequence]:
    """Those that are tracked."""
    return self._sequences

  def __call__(self, state: TrainState) -> float:
    """The score of the moving average, the same on all processes."""
    self._runner.load(jax.tree.map(_whole, {"params": state.ema, "batch_stats": state.batch_stats}))
    mine = self._sequences[jax.process_index()::jax.process_count()]
    found = dict(self._runner.run(map(_stream, mine)))
    return self._score(_from_all(found, self._sequences))

  def _score(self, results: Mapping[str, Result]) -> float:
    overall = protocols.evaluate(self._protocol, self._sequences, results).metrics["overall"]
    metric = self._config.metric or protocols.PROTOCOLS[self._protocol].official[0]
    if metric not in overall:
      raise UserError(f"config.evaluation.metric is {metric!r}, expected one of {', '.join(overall)}")
    return overall[metric]


def _stream(sequence: Sequence) -> Stream:
  """The frames of a sequence and the box to start from."""
  assert sequence.frames is not None  # They are loaded with the labels.
  return Stream(sequence.name, sequence.frames, np.asarray(sequence.boxes[0], np.float64), shape=sequence.shape)


def _whole(x: jax.Array) -> np.ndarray:
  """An array on the host, wherever its parts are."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x.addressable_data(0) if x.is_fully_replicated else x)
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def _from_all(found: dict[str, Result], sequences: list[Sequence]) -> dict[str, Result]:
  """The results of all processes, from each one's own."""
  count = jax.process_count()
  if count == 1:
    return found
  longest = max(len(s) for s in sequences)
  share = -(-len(sequences) // count)
  boxes = np.full((share, longest, 4), np.nan)
  for i, result in enumerate(found[s.name] for s in sequences[jax.process_index()::count]):
    boxes[i, :len(result)] = result.boxes
  bits = multihost_utils.process_allgather(jnp.asarray(boxes.view(np.uint32)))  # JAX would make float32 of the numbers.
  boxes = np.asarray(bits).view(np.float64)  # [processes, share, longest, 4]
  return {s.name: Result(boxes[n % count, n // count, :len(s)]) for n, s in enumerate(sequences)}
