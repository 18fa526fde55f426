"""Depthwise operations: all forms against loops in numpy, in values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siamdff_jax.models import depthwise, layers

FORMS = ("shift", "rows", "grouped")
CONVOLUTIONS = [(k, stride, dilation, padding) for k in (1, 3, 5) for stride in (1, 2) for dilation in (1, 2)
                for padding in ("SAME", "VALID") if not (k == 1 and dilation == 2)]


def conv_loop(x, kernel, stride, dilation, padding):
  """Convolution written out: one output position and one channel at a time, float64."""
  k = kernel.shape[0]
  pad = dilation * (k - 1) // 2 if padding == "SAME" else 0
  x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  reach = dilation * (k - 1)
  rows, cols = range(0, x.shape[1] - reach, stride), range(0, x.shape[2] - reach, stride)
  out = np.zeros((x.shape[0], len(rows), len(cols), x.shape[3]))
  for p, y0 in enumerate(rows):
    for q, x0 in enumerate(cols):
      window = x[:, y0:y0 + reach + 1:dilation, x0:x0 + reach + 1:dilation]
      out[:, p, q] = np.einsum("bijc,ijc->bc", window, kernel)
  return out


def correlation_loop(search, template):
  height, width = search.shape[1] - template.shape[1] + 1, search.shape[2] - template.shape[2] + 1
  out = np.zeros((search.shape[0], height, width, search.shape[3]))
  for p in range(height):
    for q in range(width):
      window = search[:, p:p + template.shape[1], q:q + template.shape[2]].astype(np.float64)
      out[:, p, q] = (window * template).sum((1, 2))
  return out


def conv_inputs(k):
  rng = np.random.default_rng(k)
  return rng.normal(size=(2, 10, 11, 3)).astype(np.float32), rng.normal(size=(k, k, 3)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("k, stride, dilation, padding", CONVOLUTIONS)
def test_convolution_equals_the_loop(form, k, stride, dilation, padding):
  x, kernel = conv_inputs(k)
  out = depthwise.depthwise_conv(x, kernel, stride=stride, dilation=dilation, padding=padding, form=form)
  np.testing.assert_allclose(out, conv_loop(x, kernel, stride, dilation, padding), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride, dilation, padding", [(1, 1, "SAME"), (2, 1, "VALID"), (1, 2, "SAME"), (2, 2, "SAME")])
def test_convolution_gradients_are_equal_and_true(stride, dilation, padding):
  x, kernel = conv_inputs(3)
  weight = np.random.default_rng(9).normal(size=conv_loop(x, kernel, stride, dilation, padding).shape)

  def loss(x, kernel, form):
    out = depthwise.depthwise_conv(x, kernel, stride=stride, dilation=dilation, padding=padding, form=form)
    return (out * weight.astype(np.float32)).sum()

  shift, *others = (jax.grad(loss, (0, 1))(x, kernel, form) for form in FORMS)
  for other in others:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), shift, other)
  # The sum is linear in each argument, so a unit step in one entry gives that entry's derivative exactly.
  base = (conv_loop(x, kernel, stride, dilation, padding) * weight).sum()
  for argument, entry in ((0, (1, 4, 6, 2)), (0, (0, 1, 1, 0)), (1, (0, 2, 1)), (1, (1, 1, 2))):
    moved = [x.astype(np.float64), kernel.astype(np.float64)]
    moved[argument][entry] += 1
    derivative = (conv_loop(*moved, stride, dilation, padding) * weight).sum() - base
    assert shift[argument][entry] == pytest.approx(derivative, rel=1e-4, abs=1e-4)


def correlation_inputs():
  rng = np.random.default_rng(3)
  return rng.normal(size=(2, 9, 8, 3)).astype(np.float32), rng.normal(size=(2, 4, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_correlation_equals_the_loop(form):
  search, template = correlation_inputs()
  out = depthwise.depthwise_correlation(search, template, form=form)
  assert out.shape == (2, 6, 6, 3)
  np.testing.assert_allclose(out, correlation_loop(search, template), rtol=1e-4, atol=1e-5)


def test_correlation_gradients_are_equal_and_true():
  search, template = correlation_inputs()
  weight = np.random.default_rng(4).normal(size=(2, 6, 6, 3)).astype(np.float32)

  def loss(s, t, form):
    return (depthwise.depthwise_correlation(s, t, form=form) * weight).sum()

  shift, *others = (jax.grad(loss, (0, 1))(search, template, form) for form in FORMS)
  for other in others:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), shift, other)
  # By the template: the search windows weighted by the response's weights, which is the same loop once more.
  np.testing.assert_allclose(shift[1], correlation_loop(search, weight)[:, :4, :3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_examples_and_channels_do_not_mix(form):
  """Changing one example's template and one channel of it changes exactly that slice of the response."""
  search, template = correlation_inputs()
  other = template.copy()
  other[1, ..., 2] += 1
  change = np.abs(depthwise.depthwise_correlation(search, other, form=form)
                  - depthwise.depthwise_correlation(search, template, form=form)).max((1, 2))  # [B, C]
  assert change[1, 2] > 0.1
  change = np.asarray(change).copy()
  change[1, 2] = 0
  assert change.max() == 0


@pytest.mark.parametrize("form", FORMS)
def test_dtype_is_kept(form):
  x, kernel = conv_inputs(3)
  assert depthwise.depthwise_conv(jnp.asarray(x, jnp.bfloat16), kernel, form=form).dtype == jnp.bfloat16
  search, template = correlation_inputs()
  assert depthwise.depthwise_correlation(jnp.asarray(search, jnp.bfloat16), template, form=form).dtype == jnp.bfloat16


@pytest.mark.parametrize("size, stride", [(3, 2), (7, 2), (3, 1)])
def test_a_narrow_convolution_is_a_convolution(size, stride):
  rng = np.random.default_rng(size)
  x, kernel = rng.normal(size=(2, 15, 13, 2)).astype(np.float32), rng.normal(size=(size, size, 2, 4)).astype(np.float32)
  wanted = np.stack([conv_loop(x, kernel[..., i], stride, 1, "VALID").sum(-1) for i in range(4)], -1)
  np.testing.assert_allclose(layers.narrow_conv(x, kernel, stride), wanted, rtol=1e-3, atol=1e-4)
