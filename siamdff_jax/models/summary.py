"""Parameters and floating-point operations of a network."""

import jax
import jax.numpy as jnp
import ml_collections

from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables


def summarize(config: ml_collections.ConfigDict) -> dict[str, float]:
  """Counts without running anything.

  Args:
    config: `config.model`.

  Returns:
    "parameters", and "search_gflop" / "template_gflop" per frame and per target: XLA's count of the lowered pass at
    batch 1, a multiply-add as 2.
  """
  model = build(config)
  variables = abstract_variables(model)
  channels = 2 if model.prior_channel else 1
  image = lambda side: jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  encode = lambda v, template, wh: model.apply(v, template, wh, method="encode_template")
  track = lambda v, encoded, search: {
      key: value for key, value in model.apply(v, encoded, search, method="track").items()
      if key in ("class_logit", "quality_logit", "ltrb", "presence_logit")}
  wh = jax.ShapeDtypeStruct((1, 2), jnp.float32)
  encoded = jax.eval_shape(encode, variables, image(model.template_side), wh)

  def gflop(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"] / 1e9

  return {
      "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
      "search_gflop": gflop(track, variables, encoded, image(model.search_side)),
      "template_gflop": gflop(encode, variables, image(model.template_side), wh),
  }
