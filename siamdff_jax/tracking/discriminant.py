"""What tells this target from what else is in its frames: a linear discriminant, learned while it is followed.

The network compares with one look at the target and has never seen its surroundings. Here the features of the
correlation at the target and at all that the network takes for alike elsewhere in the frame, in the first frame and in
some later ones, give Fisher's discriminant ("The Use of Multiple Measurements in Taxonomic Problems", Annals of
Eugenics 1936) with a shrunken covariance. Sums are kept, no frames; the first look always has half of the target's
weight, so that mistakes made later cannot take its place. (Our choice; docs/decisions.md.)
"""

import flax
import jax
import jax.numpy as jnp

_SHRINKAGE = 0.1  # Of the covariance to a multiple of one: variance added, as a share of the mean variance.
_TOLERANCE, _ITERATIONS = 1e-5, 200  # Of the solver; leaves 5e-5 of the direction.
_LIMITS = -1.0, 2.0  # Of the score: beyond them all are alike.


@flax.struct.dataclass
class Moments:
  """Of weighted samples. Attributes:

    weight: [] their sum.
    first: [D] of the samples times their weights,
    second: [D, D] and of their outer products.
  """

  weight: jax.Array
  first: jax.Array
  second: jax.Array

  @property
  def mean(self) -> jax.Array:
    """[D]; zeros without samples."""
    return self.first / jnp.maximum(self.weight, _TINY)

  @property
  def covariance(self) -> jax.Array:
    """[D, D]; zeros without samples."""
    return self.second / jnp.maximum(self.weight, _TINY) - jnp.outer(self.mean, self.mean)


@flax.struct.dataclass
class Discriminant:
  """Attributes:

    first_look: [D] mean features of the target in its first frame.
    target: of all looks at it.
    others: of what is elsewhere.
    direction: [D],
    offset: [] of the score.
  """

  first_look: jax.Array
  target: Moments
  others: Moments
  direction: jax.Array
  offset: jax.Array


_TINY = 1e-6


def init(looks: jax.Array, others: jax.Array, weights: jax.Array) -> Discriminant:
  """From the first frame.

  Args:
    looks: [M, D] features at the target, in M windows.
    others: [N, D] features elsewhere.
    weights: [N] of those, at least 0.
  """
  first, zeros = looks.mean(0), jnp.zeros_like(looks[0])
  none = Moments(jnp.zeros(()), zeros, jnp.outer(zeros, zeros))
  return learn(Discriminant(first, none, none, zeros, jnp.zeros(())), looks, others, weights)


def learn(state: Discriminant, looks: jax.Array, others: jax.Array, weights: jax.Array) -> Discriminant:
  """With one more frame; arguments as of `init`. All frames' looks at the target count alike."""
  target = _added(state.target, looks, jnp.full(len(looks), 1 / len(looks)))
  others = _added(state.others, others, weights)
  centre = (state.first_look + target.mean) / 2
  apart = centre - others.mean
  spread = (target.covariance + others.covariance) / 2
  variance = jnp.trace(spread) / len(apart)
  spread += (_SHRINKAGE * variance + _TINY) * jnp.eye(len(apart))
  # By conjugate gradients: LAPACK's bits may depend on its threads.
  direction, _ = jax.scipy.sparse.linalg.cg(lambda x: jnp.dot(spread, x, precision="highest"), apart, tol=_TOLERANCE,
                                            maxiter=_ITERATIONS)
  direction = direction / jnp.maximum(apart @ direction, _TINY)
  return Discriminant(state.first_look, target, others, direction, others.mean @ direction)


def score(state: Discriminant, features: jax.Array) -> jax.Array:
  """[..., D] -> [...]: 0 for the mean of what is elsewhere, 1 for that of the target; -1 to 2."""
  return jnp.clip(jnp.einsum("...d,d->...", features, state.direction, precision="highest") - state.offset, *_LIMITS)


def _added(moments: Moments, samples: jax.Array, weights: jax.Array) -> Moments:
  weighted = samples * weights[:, None]
  second = jnp.einsum("nd,ne->de", weighted, samples, precision="highest")
  return Moments(moments.weight + weights.sum(), moments.first + weighted.sum(0), moments.second + second)
