"""Parameters and floating-point operations of a network."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from siamdff_jax.models.build import build
from siamdff_jax.models.devices import traced_for
from siamdff_jax.models.load import abstract_variables
from siamdff_jax.models.siamdff import SiamDFF


def flops(function: Callable[..., Any], *arguments: Any) -> float:
  """Floating-point operations of a function of arrays (only their shapes matter), a multiply-add as 2.

  XLA's count of the lowered program, before any optimisation; nothing is compiled. The CPU's backend counts: the
  plugins of accelerators do not tell before compilation (CUDA's gave None, jax 0.11).

  Raises:
    RuntimeError: there is no CPU backend (JAX_PLATFORMS=cuda; "cuda,cpu" has one).
  """
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
  # Without loops, whose bodies would be counted once.
  with traced_for("gpu"), jax.default_device(jax.local_devices(backend="cpu")[0]):
    counted = jax.jit(function).lower(*shapes).cost_analysis()
  assert counted is not None  # As it is on accelerators.
  return float(counted["flops"])


def summarize(config: ml_collections.ConfigDict) -> dict[str, float]:
  """Counts without running anything.

  Args:
    config: `config.model`.

  Returns:
    "parameters", and "search_gflop" / "template_gflop" per frame and per target, see `flops`.
  """
  return dict(_counts(build(config)))


@functools.cache
def _counts(model: SiamDFF) -> dict[str, float]:
  variables = abstract_variables(model)
  channels = 2 if model.prior_channel else 1
  template, search = (jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
                      for side in (model.template_side, model.search_side))
  wh = jax.ShapeDtypeStruct((1, 2), jnp.float32)

  def encode(variables: Any, template: jax.Array, wh: jax.Array) -> Any:
    return model.apply(variables, template, wh, method="encode_template")

  def track(variables: Any, encoded: Any, search: jax.Array) -> dict[str, jax.Array]:
    out: Any = model.apply(variables, encoded, search, method="track")
    return {name: out[name] for name in ("class_logit", "quality_logit", "ltrb", "presence_logit")}

  encoded = jax.eval_shape(encode, variables, template, wh)
  return {
      "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
      "search_gflop": flops(track, variables, encoded, search) / 1e9,
      "template_gflop": flops(encode, variables, template, wh) / 1e9,
  }
