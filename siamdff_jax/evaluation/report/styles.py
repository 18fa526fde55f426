"""How each tracker looks in every chart, clip and legend of a report."""

import dataclasses

from siamdff_jax.evaluation.comparison import Comparison
from siamdff_jax.evaluation.report import tables

# Told apart on white, on black and on grey video; yellow is left for the truth.
_COLOURS = ("#2f7ed8", "#f0761b", "#1f9d55", "#d92b3a", "#8e44dd", "#12a9bd", "#e0479e", "#94643a", "#7fb414",
            "#5a67a8")
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
_SHAPES = ("circle", "square", "triangle-up", "diamond")
TRUTH_COLOUR = "#ffd60a"


@dataclasses.dataclass(frozen=True)
class Style:
  """Colour "#rrggbb", dash pattern of lines in pixels, shape of points (Vega's name)."""

  colour: str
  dash: tuple[int, ...]
  shape: str


def styles(comparison: Comparison) -> dict[str, Style]:
  """By tracker, best first: ten colours with solid lines, then the same ones dashed."""
  out = {}
  for i, name in enumerate(tables.ranking(comparison)):
    turn = i // len(_COLOURS)
    out[name] = Style(_COLOURS[i % len(_COLOURS)], _DASHES[turn % len(_DASHES)], _SHAPES[turn % len(_SHAPES)])
  return out
