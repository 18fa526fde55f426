"""A population: members that differ in the optimizer's hyper-parameters, one per device, in one compiled program.

Each device runs the one training step of siamdff_jax/training/step.py on a state of its own; nothing is exchanged, and
all members see the same batches, so the input pipeline works once for all. A member's learning rates and weight decay
are data, not constants, and the program always spans all devices, those left over repeating the last member. So the
program does not depend on the members: a member's bits are the same alone, beside any others and in any place.
(Measured: XLA compiles the step for one device, as the training loop on one device has it, with other roundings than
for several, in the last bit of few values; so a population's member is the training loop's to rounding, not to the bit.
`vmap` over members would turn convolutions into grouped ones, which are slow.)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.training.state import TrainState, optimizer, schedule
from siamdff_jax.training.step import make_step

AXIS = "population"
# What members may differ in: what ends up in the table of learning rates or in the optimizer's state.
PARAMETERS = ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.warmup_steps", "optimizer.final_fraction")


class Population:
  """The compiled step of the members and the placement of their states.

  Every leaf of a population's state has a leading axis of K = `size` entries, one per device: the members, and where
  there are fewer of them than devices, the last one again.

  Args:
    model: built without an axis name: a member sees its whole batch.
    configs: one experiment per member; they differ in `PARAMETERS` only.
    distiller, teacher: both or neither.
    devices: K of them; default: all of this host's.

  Raises:
    ValueError: more members than devices.
  """

  def __init__(self, model: SiamDFF, configs: Sequence[ml_collections.ConfigDict], *,
               distiller: nn.Module | None = None, teacher: SiamDFF | None = None,
               devices: Sequence[jax.Device] | None = None):
    places = list(jax.local_devices() if devices is None else devices)
    if len(configs) > len(places):
      raise ValueError(f"{len(configs)} members do not fit on {len(places)} devices, one each")
    self.size = len(places)
    self._configs = [*configs, *[configs[-1]] * (self.size - len(configs))]
    mesh = Mesh(np.array(places), (AXIS,))
    self._split, self._same = (NamedSharding(mesh, spec) for spec in (PartitionSpec(AXIS), PartitionSpec()))
    steps = configs[0].train.steps
    table = np.stack([jax.jit(jax.vmap(schedule(c.optimizer, steps)))(jnp.arange(steps)) for c in self._configs])
    self.learning_rates = jax.device_put(table.astype(np.float32), self._split)  # [K, steps]
    self._step = jitted_step(model, configs[0], mesh, distiller, teacher)

  def put_state(self, state: TrainState) -> TrainState:
    """The state before the first step: that of one training, for all members, with each one's weight decay.

    Args:
      state: of `initial_state`.

    Returns:
      The population's state.
    """
    stacked = jax.tree.map(lambda x: np.broadcast_to(x, (self.size, *x.shape)), jax.device_get(state))
    decay = np.array([c.optimizer.weight_decay for c in self._configs], np.float32)
    hyperparams = dict(stacked.opt_state.hyperparams, weight_decay=decay)
    return self.put_stacked(stacked.replace(opt_state=stacked.opt_state._replace(hyperparams=hyperparams)))

  def put_stacked(self, state: TrainState) -> TrainState:
    """Places a state that has the members' axis already."""
    return jax.device_put(state, self._split)

  def put_shared(self, tree: Any) -> Any:
    """Places what is the same for all members: a batch, the teacher's variables."""
    return jax.device_put(tree, self._same)

  def step(self, state: TrainState, batch: dict[str, jax.Array], teacher_variables: Any = None
           ) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of every member; `state` is donated. The metrics are [K]."""
    return self._step(state, self.learning_rates, batch, teacher_variables)


def member(state: TrainState, k: int) -> TrainState:
  """The state of member `k` as numpy: what a training of its own would have."""

  def mine(x: jax.Array) -> np.ndarray:
    shard = next(s for s in x.addressable_shards if (s.index[0].start or 0) == k)
    return np.array(shard.data)[0]  # A copy: the buffer is given to the next step.

  return jax.tree.map(mine, state)


def jitted_step(model: SiamDFF, config: ml_collections.ConfigDict, mesh: Mesh, distiller: nn.Module | None,
                teacher: SiamDFF | None) -> Any:
  """The members' step as `Population.step` calls it: (state, learning_rates, batch, teacher_variables).

  Args:
    model, distiller, teacher: as for `Population`.
    config: of any member.
    mesh: with the one axis `AXIS`.
  """
  step = _member_step(model, config, distiller, teacher)
  over, same = PartitionSpec(AXIS), PartitionSpec()
  # Nothing crosses members, so there is no varying-over-the-axis bookkeeping to check.
  return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(over, over, same, same), out_specs=over, check_vma=False),
                 donate_argnums=0)


def _member_step(model: SiamDFF, config: ml_collections.ConfigDict, distiller: nn.Module | None,
                 teacher: SiamDFF | None) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """The step of one member as `shard_map` sees it: its share of the members' axis has length 1."""

  def step(state: TrainState, learning_rates: jax.Array, batch: dict[str, jax.Array], teacher_variables: Any
           ) -> tuple[TrainState, dict[str, jax.Array]]:
    rates = learning_rates[0]
    rule = optimizer(config.optimizer, config.train.steps, learning_rate=lambda count: rates[count])
    one = make_step(model, rule, config, distiller=distiller, teacher=teacher)
    new = one(jax.tree.map(lambda x: x[0], state), batch, teacher_variables)
    return jax.tree.map(lambda x: x[None], new)

  return step
