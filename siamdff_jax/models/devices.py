"""Which kind of device a program is traced for: where XLA's compilers want one operation written in different ways."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

Kind = Literal["cpu", "gpu", "tpu"]
_traced_for: contextvars.ContextVar[Kind | None] = contextvars.ContextVar("kind", default=None)


@contextlib.contextmanager
def traced_for(kind: Kind) -> Iterator[None]:
  """What is traced in this context is meant for such devices, whatever the default backend is."""
  token = _traced_for.set(kind)
  try:
    yield
  finally:
    _traced_for.reset(token)


def kind() -> Kind:
  """That of `traced_for`, else the default backend's."""
  return _traced_for.get() or jax.default_backend()  # type: ignore[return-value]  # A plain string there.
