"""How this process asks the system for memory."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # M_... of glibc's malloc.h.


def keep_freed_memory() -> None:
  """Lets glibc keep what is freed for the next request, instead of handing it back to the system.

  XLA:CPU asks for a step's temporaries, hundreds of MB, at each step anew. By default glibc has the system map them
  every time, and the system clears every page: a fifth of the training step's time (docs/performance.md). Kept, they
  are mapped once; what the process holds at its peak it then holds to its end. To be called before threads start.
  Without glibc nothing happens.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is not None:
    mallopt(_TRIM_THRESHOLD, -1)  # Never hand back.
    mallopt(_MMAP_MAX, 0)  # No request of its own for large blocks, which would be handed back when they are freed.
    mallopt(_ARENA_MAX, 1)  # One heap for all threads: a thread's own cannot hold large blocks.
