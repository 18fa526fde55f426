"""Normalisation with its gradient by hand against Flax's and JAX's own, ReLU included."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamdff_jax.models.norm import Norm


class Plain(nn.Module):
  """The same by Flax."""

  kind: str
  relu: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, train):
    groups = 2 if self.kind == "group" else None
    if groups:
      x = nn.GroupNorm(groups, dtype=self.dtype)(x)
    else:
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
    return nn.relu(x) if self.relu else x


def data(dtype):
  rng = np.random.default_rng(0)
  x = jnp.asarray(3 + 2 * rng.normal(size=(4, 5, 6, 8)), dtype)
  variables = {"params": {"scale": jnp.asarray(rng.normal(size=8), jnp.float32),
                          "bias": jnp.asarray(rng.normal(size=8), jnp.float32)},
               "batch_stats": {"mean": jnp.asarray(rng.normal(size=8), jnp.float32),
                               "var": jnp.asarray(rng.uniform(1, 2, size=8), jnp.float32)}}
  return x, variables, jnp.asarray(rng.normal(size=x.shape), jnp.float32)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kind, train", [("group", True), ("batch", True), ("batch", False)])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.02)])
def test_values_statistics_and_gradients_are_those_of_flax(kind, train, relu, dtype, tolerance):
  x, variables, weight = data(dtype)
  name = "GroupNorm_0" if kind == "group" else "BatchNorm_0"
  variables = {key: {name: value} for key, value in variables.items() if kind == "batch" or key == "params"}

  def results(module):
    def loss(params, x):
      out, updates = module.apply({**variables, "params": params}, x, train, mutable=["batch_stats"])
      return (out.astype(jnp.float32) * weight).sum(), (out, updates)

    (_, aux), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)
    return aux, gradients

  ours = results(Norm(kind, relu=relu, dtype=jnp.dtype(dtype)))
  theirs = results(Plain(kind, relu, jnp.dtype(dtype)))

  def close(a, b):
    assert a.dtype == b.dtype
    a, b = (np.asarray(v, np.float32) for v in (a, b))
    np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())

  jax.tree.map(close, ours, theirs)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_batch_statistics_are_those_of_all_devices(devices):
  """Split over devices, values and gradients are those of the whole batch on one."""
  x, variables, weight = data("float32")
  variables = {key: {"BatchNorm_0": value} for key, value in variables.items()}

  def loss(module, params, x, weight):
    out, _ = module.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
    return (out * weight).sum()

  whole = jax.grad(lambda p, x: loss(Norm(relu=True), p, x, weight), (0, 1))(variables["params"], x)

  def part(x, weight):  # One device's.
    return jax.grad(lambda p, x: loss(Norm(relu=True, axis_name="data"), p, x, weight), (0, 1))(variables["params"], x)

  def split(a):
    return a.reshape(devices, -1, *a.shape[1:])

  by_params, by_x = jax.vmap(part, axis_name="data")(split(x), split(weight))
  np.testing.assert_allclose(by_x.reshape(x.shape), whole[1], atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a.sum(0), b, rtol=1e-4, atol=1e-4), by_params, whole[0])


def test_a_constant_map_has_finite_gradients():
  x = jnp.full((2, 3, 3, 8), 0.3)
  for kind in ("group", "batch"):
    module = Norm(kind, relu=True)
    variables = module.init(jax.random.key(0), x, True)
    slope = jax.grad(lambda x, m=module, v=variables: m.apply(v, x, True, mutable=["batch_stats"])[0].sum())(x)
    assert np.isfinite(slope).all()
