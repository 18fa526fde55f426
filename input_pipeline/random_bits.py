"""Random numbers as a pure function of (seed, counter), the same on the host and inside a compiled program.

Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), written over an
array module: `numpy` on the host, `jax.numpy` on an accelerator. Both give the same bits.
"""

from types import ModuleType

import numpy as np

from input_pipeline.geometry import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry2x32(key: tuple[Array, Array], counter: tuple[Array, Array], xp: ModuleType = np) -> tuple[Array, Array]:
  """Encrypts counters.

  Args:
    key: two uint32 arrays of one element or more.
    counter: two uint32 arrays; all four must broadcast.
    xp: the array module.

  Returns:
    Two uint32 arrays.
  """
  keys = (key[0], key[1], key[0] ^ key[1] ^ xp.uint32(_PARITY))
  x0, x1 = counter[0] + keys[0], counter[1] + keys[1]
  for block in range(5):
    for rotation in _ROTATIONS[block % 2]:
      x0 = x0 + x1
      x1 = (x1 << xp.uint32(rotation)) | (x1 >> xp.uint32(32 - rotation))
      x1 = x1 ^ x0
    x0 = x0 + keys[(block + 1) % 3]
    x1 = x1 + keys[(block + 2) % 3] + xp.uint32(block + 1)
  return x0, x1


def uniforms(seed: int, index: Array, count: int, xp: ModuleType = np) -> Array:
  """`count` numbers for each index.

  Args:
    seed: of the stream, 0 <= seed < 2**64.
    index: uint32 [n].
    count: how many for each.
    xp: the array module.

  Returns:
    float32 [n, count], uniform in [0, 1): multiples of 2**-24.
  """
  key = (xp.full((1, 1), seed & 0xFFFFFFFF, xp.uint32), xp.full((1, 1), seed >> 32, xp.uint32))
  bits, _ = threefry2x32(key, (index[:, None], xp.arange(count, dtype=xp.uint32)[None]), xp)
  return (bits >> xp.uint32(8)).astype(xp.float32) * xp.float32(2**-24)
