"""The section `model` of a config: the network."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from siamdff_jax.models.backbone import feature_side
from siamdff_jax.models.norm import NORMS
from siamdff_jax.rules import Rule, number, one_of, place_of, problem, several, switch, whole

_LEVELS = 4  # Stages of a backbone.
_RESNET = {
    "blocks": several(_LEVELS, whole(1), "whole numbers of at least 1, the blocks of each stage"),
    "widths": several(_LEVELS, whole(1), "whole numbers of at least 1, the channels of each stage"),
    "bottleneck": switch(),
    "stem_kernel": Rule(lambda x: whole(3).accepts(x) and x % 2 == 1, "an odd number of at least 3"),
    "remat": switch(),
}
_LITE = {"stages": several(_LEVELS, several(3, whole(1), ""), "stages of three whole numbers of at least 1: blocks, "
                           "features, expansion")}
_SIDE = Rule(lambda x: whole(15).accepts(x) and x % 8 == 7, "8 n + 7 pixels, for example 63, 127, 191 or 255")


def _backbone(values: Mapping[str, Any]) -> dict[str, Any]:
  """The table of a backbone, which depends on its kind."""
  return {"kind": one_of(("resnet", "lite"))} | (_LITE if values.get("kind") == "lite" else _RESNET)


TABLE = {
    "backbone": _backbone,
    "features": whole(1),
    "heads": whole(1),
    "tower_depth": whole(0),
    "template_side": _SIDE,
    "search_side": _SIDE,
    "mean": number(0, 1),
    "std": number(above=0),
    "norm": one_of(NORMS),
    "dtype": one_of(("float32", "bfloat16", "float16")),
    "correlation_padding": whole(0),
    "prior_channel": switch(),
    "use_sten": switch(), "use_intensity": switch(), "use_dsfam": switch(), "use_dcfam": switch(),
}


def together(model: ml_collections.ConfigDict, place: str) -> list[str]:
  """What is wrong with values that are right by themselves, a sentence each."""
  found = []
  if model.use_sten and model.features % model.heads:
    found.append(problem(place_of(place, "heads"), model.heads,
                         f"a divisor of the {model.features} features, which the heads share"))
  if feature_side(model.search_side) < feature_side(model.template_side):
    found.append(problem(place_of(place, "search_side"), model.search_side,
                         f"at least the template's {model.template_side} pixels"))
  return found
