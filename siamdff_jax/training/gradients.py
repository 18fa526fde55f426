"""From the gradient of a part of the batch to that of the global batch: at once, accumulated, or by virtual shards.

Every function takes `grad_fn(params, batch_stats, part, *rest) -> (grads, (metrics, batch_stats))`, `train`, the
training state, the batch (this device's part where `axis_name` is set), the arguments `rest`, and gives
(grads, metrics, batch_stats) of the global batch, equal on all devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from input_pipeline.errors import UserError
from siamdff_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Gradients = tuple[Any, dict[str, jax.Array], Any]  # Like params; metrics, each float32 []; batch_stats.


def axis_size(axis_name: str | None) -> int:
  """The devices that share the batch."""
  return lax.axis_size(axis_name) if axis_name else 1


def accumulated(grad_fn: Callable[..., Any], rounds: int, axis_name: str | None, state: TrainState, batch: Batch,
                *rest: Any) -> Gradients:
  """Means over `rounds` equal parts of the batch, one after the other; running statistics go from part to part.

  Raises:
    UserError: the parts are not equal.
  """

  def mean(tree: Any) -> Any:
    return lax.pmean(tree, axis_name) if axis_name else tree

  size = len(batch["present"])
  if size % rounds:
    raise UserError(f"--config.train.accumulate={rounds} does not divide the {size} pairs of a device's batch")
  if rounds == 1:
    grads, (metrics, batch_stats) = grad_fn(state.params, state.batch_stats, batch, *rest)
    return mean(grads), mean(metrics), mean(batch_stats)

  def body(carry: tuple[Any, Any], part: Batch) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
    total, batch_stats = carry
    grads, (metrics, batch_stats) = grad_fn(state.params, batch_stats, part, *rest)
    return (jax.tree.map(jnp.add, total, grads), batch_stats), metrics

  zeros = jax.tree.map(jnp.zeros_like, state.params)
  (total, batch_stats), metrics = lax.scan(body, (zeros, state.batch_stats), _cut(batch, rounds))
  grads = jax.tree.map(lambda g: g / rounds, total)
  return mean(grads), mean(jax.tree.map(jnp.mean, metrics)), mean(batch_stats)


def by_virtual_shard(grad_fn: Callable[..., Any], shards: int, axis_name: str | None, state: TrainState, batch: Batch,
                     *rest: Any) -> Gradients:
  """Means over `shards` equal parts of the *global* batch, added up in one order: the same bits on any device count.

  A device takes its shards one after the other, in shapes that do not hang on how many devices there are. Batch
  normalisation sees one shard ("ghost" batch normalisation); its running statistics move by the mean over the shards.

  The cost, with D devices and P parameters: a device holds about 3 P shards/D numbers more than otherwise, sends
  (shards/D + 1)/2 times what a usual all-reduce does, and computes on small parts. Our choice: an all-to-all, so that
  each device adds up its D-th of all gradients, and an all-gather; gathering all gradients everywhere would hold
  P shards.

  The bits are those of one machine type. On CPUs they also hang on how many (virtual) devices a *process* has: seen
  with 4 or 8 instead of 1 or 2 per process on 2 cores; two processes of two devices give the bits of one of two.
  """
  parts = _cut(batch, shards // axis_size(axis_name))

  def one(part: Batch) -> Any:
    # The barriers keep the compiler from fusing a shard's program with what is around it, which differs with the
    # number of devices: with one shard per device there is no loop.
    args = lax.optimization_barrier((state.params, state.batch_stats, part, *rest))
    return lax.optimization_barrier(grad_fn(*args))

  grads, (metrics, batch_stats) = lax.optimization_barrier(ordered_mean(lax.map(one, parts), axis_name))
  return grads, metrics, batch_stats


def ordered_mean(tree: Any, axis_name: str | None) -> Any:
  """Means over axis 0 of all devices' arrays, added up one after the other in the order of the devices.

  Args:
    tree: float32 arrays [n, ...].
    axis_name: the mapped axis, or None.

  Returns:
    Arrays [...], equal on all devices.
  """
  leaves, structure = jax.tree.flatten(tree)
  sizes = [x[0].size for x in leaves]
  flat = jnp.concatenate([x.reshape(len(x), -1) for x in leaves], 1)  # [n, P]
  if axis_name:
    flat = jnp.pad(flat, ((0, 0), (0, -flat.shape[1] % axis_size(axis_name))))
    flat = lax.all_to_all(flat, axis_name, split_axis=1, concat_axis=0, tiled=True)  # [D n, P/D]
  total, _ = lax.scan(lambda total, x: (total + x, None), jnp.zeros_like(flat[0]), flat)
  mean = total / len(flat)
  if axis_name:
    mean = lax.all_gather(mean, axis_name, tiled=True)
  ends = [sum(sizes[:i + 1]) for i in range(len(sizes))]
  return jax.tree.unflatten(structure, [
      mean[end - size:end].reshape(x.shape[1:]) for x, size, end in zip(leaves, sizes, ends, strict=True)])


def _cut(batch: Batch, parts: int) -> Batch:
  """[n, ...] -> [parts, n / parts, ...]."""
  return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
