"""The weighted terms of a distiller, by name."""

from collections.abc import Mapping

import jax

from input_pipeline.errors import UserError


def weighted(terms: Mapping[str, jax.Array], weights: Mapping[str, float], defaults: Mapping[str, float]
             ) -> dict[str, jax.Array]:
  """Each scalar of `terms` times its weight.

  Args:
    terms: unweighted scalars; the same names as `defaults`.
    weights: by term name, what the user set; may be empty.
    defaults: the weight of every term that `weights` leaves out.

  Raises:
    UserError: a weight for a term that does not exist.
  """
  unknown = sorted(set(weights) - set(defaults))
  if unknown:
    raise UserError(f"distiller.weights has {unknown}, but this distiller's terms are {sorted(defaults)}")
  merged = {**defaults, **weights}
  return {name: merged[name] * value for name, value in terms.items()}
