"""What the machine refuses (an accelerator that is not there, memory, disk), as one sentence: JAX's own errors are
pages."""

import errno
import os
import sys
import traceback

# What JAX starts by, and what is expected of each.
_SETTINGS = {
    "JAX_NUM_CPU_DEVICES": "a whole number of at least 1",
    "JAX_PLATFORMS": "a platform that this machine has, for example cpu",
    "CUDA_VISIBLE_DEVICES": "devices that this machine has",
}
# Of a disk, its file system and what one may do there; a file that is not there may be a mistake of ours.
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE,
             errno.ESTALE, errno.ENAMETOOLONG}


def sentence(error: BaseException) -> str | None:
  """What an error that is the machine's says; None for any other, which is a mistake of ours."""
  first = next(iter(str(error).strip().splitlines()), "")
  if isinstance(error, MemoryError):
    return f"out of memory{f' ({first})' if first else ''}; smaller batches, fewer --streams or --workers take less"
  if isinstance(error, RuntimeError) and ("RESOURCE_EXHAUSTED" in first or "out of memory" in first.lower()):
    return (f"out of memory on the device ({first}); in training a smaller --config.train.batch_size takes less, or a "
            "larger --config.train.accumulate, in tracking fewer --streams")
  if isinstance(error, OSError) and error.errno in _OF_DISKS:
    return f"{error.filename if error.filename is not None else 'the output'}: {error.strerror}"
  if (why := _start_failure(error, first)) is None:
    return None
  named = [name for name in os.environ if name.startswith("JAX_") and name.lower() in why.lower()]
  given = named or [name for name in _SETTINGS if name in os.environ]
  reason = why.split(" (")[0].rstrip(".") or "none of these devices is here"
  if not given:
    return f"JAX cannot start: {reason}"
  return (f"{' '.join(f'{name}={os.environ[name]}' for name in given)}: JAX cannot start ({reason}); expected "
          f"{_SETTINGS.get(given[0], 'another value, or none')}")


def forget_64_bits() -> str | None:
  """Takes JAX_ENABLE_X64 out of the environment, for which the networks are not made; the note to be shown, if any.

  To be called before JAX is imported.
  """
  if os.environ.get("JAX_ENABLE_X64", "").lower() in ("1", "true", "yes", "on", "y", "t"):
    value = os.environ.pop("JAX_ENABLE_X64")
    return f"JAX_ENABLE_X64={value} is left out: the networks compute with 32 bits"
  return None


def _start_failure(error: BaseException, first: str) -> str | None:
  """JAX's words, perhaps none, if it could not start; None where it did."""
  frames = traceback.extract_tb(error.__traceback__)
  place = frames[-1].filename.replace(os.sep, "/") if frames else ""
  if isinstance(error, ValueError) and place.endswith("jax/_src/config.py"):
    return first  # It has read a setting from the environment.
  if "Unable to initialize backend" in first:
    return first
  if isinstance(error, AssertionError) and not first and "jax" in sys.modules:
    # So it says that no device is here; where, is left out of many a traceback. If so, it does again.
    try:
      sys.modules["jax"].devices()
    except (AssertionError, RuntimeError) as again:
      return str(again)
  return None
