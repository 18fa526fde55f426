"""Checksums of arrays, computed where the arrays live.

Orbax's array files carry none: one bit flipped in them comes back as another number, without a word.
"""

from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp

from input_pipeline.geometry import Array

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of(arrays: Mapping[str, Array]) -> dict[str, int]:
  """One checksum for each array.

  The bits of the elements as integers, each times an odd number that depends on its place, summed modulo 2^32 (our
  choice): one changed element is always seen, any other change but once in 2^32. Integer sums are the same in every
  order, so the checksum does not depend on how an array is sharded, and the arrays stay where they are.

  Args:
    arrays: {name: array [...] of a type of 1, 2 or 4 bytes}; numpy or jax, sharded in any way.

  Returns:
    {name: checksum in 0 .. 2^32 - 1}.
  """
  sums = {}
  for name, x in arrays.items():
    sums[name] = _sum(x)
    if _needs_waiting(x):
      sums[name].block_until_ready()  # On CPUs, programs with collectives that are under way together lock each other.
  return {name: int(value) for name, value in jax.device_get(sums).items()}


def _needs_waiting(x: Array) -> bool:
  if jax.process_count() > 1:
    return True
  devices: Collection[jax.Device] = x.sharding.device_set if isinstance(x, jax.Array) else ()
  return len(devices) > 1 and next(iter(devices)).platform == "cpu"


@jax.jit  # Array by array: many have the same shape, and one program for all takes long to compile.
def _sum(x: jax.Array) -> jax.Array:
  x = x.astype(jnp.uint8) if x.dtype == bool else x
  bits = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize]).astype(jnp.uint32)
  place, stride = jnp.zeros((), jnp.uint32), 1
  for axis in reversed(range(x.ndim)):  # Axis by axis: flattening would gather a sharded array.
    place = place + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
    stride *= x.shape[axis]
  return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
