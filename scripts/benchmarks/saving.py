"""What saving a checkpoint in the background costs the steps."""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import timing
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.models.build import build
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import initial_state

_SECONDS = 0.05  # Of the step: about what a network's takes.
_SIDE = 256  # Of the matrices that it multiplies.


def rows(config: ml_collections.ConfigDict, workdir: str, repeats: int) -> Iterator[dict]:
  """Wall times of steps with and without a save; one row for each kind, medians in ms.

  The state is that of `config` with random values; the step is a stand-in of about 50 ms that writes all of it anew
  and donates the old one, so that no network has to be compiled.

  Args:
    config: of a training; its model and optimizer count. The distiller's adapters, small beside them, are left out.
    workdir: where the checkpoints go, the disk or bucket that is measured: a new folder; the caller removes it.
    repeats: saves that count; one more comes before them.

  Raises:
    UserError: the folder holds checkpoints already, or one could not be saved.
  """
  state = random_state(config)
  megabytes = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
  step, state = _stand_in(state)
  times: dict[str, list[float]] = {
      "step without a save": [], "step in which save is called": [], "of it, the call of save": [],
      "step while a save is under way": [], "a save until it is on the disk": []}
  with Checkpoints(workdir) as saved:
    if saved.last_step is not None:
      raise UserError(f"{saved.folder}: holds checkpoints already, expected a new folder")
    for turn in range(-1, repeats):
      found: dict[str, list[float]] = {name: [] for name in times}
      for _ in range(5):
        state = _timed(found["step without a save"], step, state)
      state = _round(saved, config, step, state, found)
      if turn >= 0:
        for name, seconds in found.items():
          times[name] += seconds
  alone = timing.median(times["step without a save"])
  for name, seconds in times.items():
    middle = timing.median(seconds) if seconds else float("nan")  # A save may be over before the next step.
    yield {"what": name, "state (MB)": megabytes, "median (ms)": 1e3 * middle,
           "quartiles (ms)": timing.spread(seconds) if seconds else "-",
           "longest (ms)": 1e3 * max(seconds, default=float("nan")), "times a step": middle / alone,
           "timings": len(seconds), "seconds": seconds}


def _round(saved: Checkpoints, config: ml_collections.ConfigDict, step: Callable[[TrainState], TrainState],
           state: TrainState, found: dict[str, list[float]]) -> TrainState:
  """A step with a save and those until the save has arrived."""
  start = time.perf_counter()
  state = step(state)
  called = time.perf_counter()
  saved.save(state, config, 0.5)
  found["of it, the call of save"].append(time.perf_counter() - called)
  jax.block_until_ready(state)
  found["step in which save is called"].append(time.perf_counter() - start)
  while saved.saving:
    state = _timed(found["step while a save is under way"], step, state)
  found["a save until it is on the disk"].append(time.perf_counter() - called)
  saved.wait()
  return state


def _timed(times: list[float], step: Callable[[TrainState], TrainState], state: TrainState) -> TrainState:
  start = time.perf_counter()
  state = jax.block_until_ready(step(state))
  times.append(time.perf_counter() - start)
  return state


def random_state(config: ml_collections.ConfigDict) -> TrainState:
  """A state of the shapes of `config`'s, with random values (zeros would compress well)."""
  model, rule = build(config.model), optimizer(config.optimizer, config.train.steps)
  shapes = jax.eval_shape(lambda: initial_state(model, None, rule, config.seed))
  rng = np.random.default_rng(0)
  values = jax.tree.map(lambda x: jax.device_put(rng.normal(size=x.shape).astype(x.dtype)), shapes)
  return values.replace(step=jnp.zeros((), jnp.int32))


def _stand_in(state: TrainState) -> tuple[Callable[[TrainState], TrainState], TrainState]:
  """The compiled step, of about `_SECONDS`, and the state after it was timed."""
  matrix = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(_SIDE, _SIDE)))[0], jnp.float32)

  def write_anew(state: TrainState, matrix: jax.Array, turns: jax.Array) -> TrainState:
    product = jax.lax.fori_loop(0, turns, lambda _, x: x @ matrix, matrix)  # Orthogonal: stays finite.

    def change(x: jax.Array) -> jax.Array:
      return (0.999 * x + 1e-9 * product[0, 0]).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(change, state).replace(step=state.step + 1)

  compiled = jax.jit(write_anew, donate_argnums=0)
  seconds = {}
  for turns in (0, 100):
    times: list[float] = []
    for _ in range(4):
      state = _timed(times, functools.partial(compiled, matrix=matrix, turns=turns), state)
    seconds[turns] = timing.median(times[1:])
  turns = int(100 * max(_SECONDS - seconds[0], 0.0) / max(seconds[100] - seconds[0], 1e-6))
  return functools.partial(compiled, matrix=matrix, turns=turns), state
