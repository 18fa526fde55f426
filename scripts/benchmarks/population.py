"""Several trainings of one network on the same batches: in one program, and one after the other."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.cases import Case, random_batch
from benchmarks.step import initial_values
from siamdff_jax.models.build import build
from siamdff_jax.sweeps.population import Population
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import make_step

MEMBERS = 8
_Call = Callable[[], Any]  # One step of all members.


def rows(case: Case, batch: int, repeats: int, members: int = MEMBERS) -> Iterator[dict]:
  """A row per form: "one after the other", "lax.map", "vmap", and with a device for each member "one per device".

  Args:
    case: without a teacher.
    batch: pairs of each member, the same for all.
    repeats: timings of each.
    members: trainings.
  """
  case = case.with_batch(batch)
  first = None
  for name, make in _FORMS.items():
    if name == "one per device" and jax.local_device_count() < members:
      continue
    call = make(case, members)
    compile_seconds, count = timing.once(call), timing.calls_per_timing(call)
    times = timing.interleaved({name: timing.repeated(call, count)}, repeats, warmup=0)[name]
    seconds = timing.median(times) / count
    first = first or seconds
    yield {"case": case.name, "members": members, "batch": batch, "form": name, "step of all (ms)": 1e3 * seconds,
           "pairs/s": members * batch / seconds, "speed": first / seconds, "compile (s)": compile_seconds,
           "seconds": times, "steps_per_timing": [count]}


def _one_after_the_other(case: Case, members: int) -> _Call:
  step, state = _step_and_state(case)
  states = [jax.tree.map(jnp.array, state) for _ in range(members)]
  batch, compiled = jax.device_put(random_batch(case.config)), jax.jit(step, donate_argnums=0)

  def call() -> Any:
    metrics = []
    for number, state in enumerate(states):
      states[number], found = compiled(state, batch)
      metrics.append(found)
    return metrics

  return call


def _in_one(over: Callable[..., Any]) -> Callable[[Case, int], _Call]:
  """`over(step, states, batch)` is one step of the stacked states."""

  def make(case: Case, members: int) -> _Call:
    step, state = _step_and_state(case)
    states = jax.tree.map(lambda x: jnp.stack([x] * members), state)
    batch = jax.device_put(random_batch(case.config))
    return _stateful(jax.jit(lambda states, batch: over(step, states, batch), donate_argnums=0), states, batch)

  return make


def _one_per_device(case: Case, members: int) -> _Call:
  """What sweeps train by (`siamdff_jax.sweeps.population`)."""
  population = Population(build(case.config.model), [case.config] * members, devices=jax.local_devices()[:members])
  states = population.put_state(initial_values(case)[0])
  return _stateful(population.step, states, population.put_shared(random_batch(case.config)))


def _stateful(step: Callable[..., Any], states: Any, batch: Any) -> _Call:

  def call() -> Any:
    nonlocal states
    states, metrics = step(states, batch)
    return metrics

  return call


def _step_and_state(case: Case) -> tuple[Callable[..., Any], Any]:
  rule = optimizer(case.config.optimizer, case.config.train.steps)
  return make_step(build(case.config.model), rule, case.config), initial_values(case)[0]


_FORMS = {
    "one after the other": _one_after_the_other,
    "lax.map": _in_one(lambda step, states, batch: jax.lax.map(lambda state: step(state, batch), states)),
    "one per device": _one_per_device,
    "vmap": _in_one(lambda step, states, batch: jax.vmap(step, in_axes=(0, None))(states, batch)),
}
