"""Distillation: ours ("contextual") and its rivals, all with one interface, chosen by one config flag.

A distiller is called with the outputs of both networks and the target's boxes and returns weighted terms by name, see
`contextual.TargetAwareDistiller.__call__`. Its parameters (adapters, context blocks) exist in training only.
"""

import ml_collections
from flax import linen as nn

from input_pipeline.errors import UserError
from siamdff_jax.distillation import attention_transfer, channel_wise, contextual, fgd
from siamdff_jax.distillation.attention_transfer import AttentionTransfer
from siamdff_jax.distillation.channel_wise import ChannelWise
from siamdff_jax.distillation.contextual import TargetAwareDistiller
from siamdff_jax.distillation.fgd import FGD

DISTILLERS: dict[str, type[nn.Module]] = {
    "contextual": TargetAwareDistiller, "fgd": FGD, "at": AttentionTransfer, "cwd": ChannelWise}
TERMS = {kind: tuple(module.WEIGHTS) for kind, module in (
    ("contextual", contextual), ("fgd", fgd), ("at", attention_transfer), ("cwd", channel_wise))}
OPTIONS = ("temperature", "target_temperature")


def build(config: ml_collections.ConfigDict) -> nn.Module | None:
  """The distiller of a `config.distiller`, or None for kind "none".

  Args:
    config: `kind`; optional `weights` ({term: float}, the rest by default) and `temperature`, `target_temperature`
      (None or missing: the kind's default).

  Raises:
    UserError: an unknown kind, or an option that the kind does not have.
  """
  if config.kind == "none":
    return None
  if config.kind not in DISTILLERS:
    raise UserError(f"distiller.kind is {config.kind!r}, expected one of {['none', *DISTILLERS]}")
  distiller = DISTILLERS[config.kind]
  options = {name: config[name] for name in OPTIONS if config.get(name) is not None}
  foreign = sorted(set(options) - set(distiller.__dataclass_fields__))
  if foreign:
    raise UserError(f"distiller.kind {config.kind!r} has no option {foreign}, leave it at None")
  return distiller(weights=dict(config.get("weights") or {}), **options)
