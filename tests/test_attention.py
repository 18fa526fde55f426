"""STEN, DSFAM, DCFAM and the intensity prior against numpy, their initial states, and the gradients of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small
from siamdff_jax import losses
from siamdff_jax.models import dcfam, intensity
from siamdff_jax.models.build import build
from siamdff_jax.models.dsfam import DSFAM
from siamdff_jax.models.layers import peak
from siamdff_jax.models.sten import STEN, IntensityAttention
from siamdff_jax.training.step import network_inputs

D, HEADS, SCALES = 8, 2, 3


def random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def cross_attention(params, queries, keys, bias=None, gate=None):
  """Multi-head cross-attention, one example and one head at a time, float64.

  bias: [B, heads, N_key] added to the logits; gate: [B, N_key, D] times the values.
  """

  def affine(x, p):
    return x.reshape(x.shape[0], -1, D).astype(np.float64) @ p["kernel"] + p["bias"]

  q, k, v = affine(queries, params["query"]), affine(keys, params["key"]), affine(keys, params["value"])
  if gate is not None:
    v = v * gate
  out, d = np.zeros(q.shape), D // HEADS
  for b in range(len(q)):
    for h in range(HEADS):
      part = slice(h * d, (h + 1) * d)
      logits = q[b, :, part] @ k[b, :, part].T / np.sqrt(d)
      if bias is not None:
        logits = logits + bias[b, h]
      out[b, :, part] = softmax(logits) @ v[b, :, part]
  return out.reshape(queries.shape)


@pytest.fixture(scope="module")
def sten():
  """(module, perturbed parameters, template, search, their intensity maps)."""
  module = STEN(HEADS)
  data = (random(0, 2, 3, 3, D), random(1, 2, 5, 5, D), np.abs(random(2, 2, 3, 3, SCALES)),
          np.abs(random(3, 2, 5, 5, SCALES)))
  return module, small.random_params(module, *data, seed=4), data


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 0.05)])
def test_gradients_of_the_attention_are_those_of_the_plain_form(sten, dtype, tolerance):
  """Against softmax and einsum as they are written in the docstring, differentiated by JAX."""
  _, params, (template, search, _, key_intensity) = sten
  params, weight = params["template_attention"], random(5, *template.shape)

  def ours(params, queries, keys):
    out = IntensityAttention(HEADS, dtype=jnp.dtype(dtype)).apply({"params": params}, queries, keys, key_intensity)
    return (out.astype(jnp.float32) * weight).sum()

  def plain(params, queries, keys):
    q, k, v = (x @ params[name]["kernel"] + params[name]["bias"]
               for name, x in (("query", queries), ("key", keys), ("value", keys)))
    gate = jax.lax.conv_general_dilated(key_intensity, params["value_gate"]["kernel"], (1, 1), "SAME",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))
    v = v * (1 + jnp.tanh(gate + params["value_gate"]["bias"]))
    q, k, v = (x.reshape(len(x), -1, HEADS, D // HEADS) for x in (q, k, v))
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / (D // HEADS)**0.5
    logits += jnp.einsum("bks,hs->bhk", key_intensity.reshape(*k.shape[:2], -1), params["alpha"])[:, :, None]
    out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)
    return (out.reshape(weight.shape) * weight).sum()

  found, wanted = (jax.grad(f, (0, 1, 2))(params, template, search) for f in (ours, plain))
  scale = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), found, wanted)


def test_without_intensity_weights_it_is_plain_cross_attention(sten):
  module, params, data = sten
  template, search, *_ = data
  for name in ("search_attention", "template_attention"):
    attention = params[name]
    attention = {**attention, "alpha": np.zeros_like(attention["alpha"]),
                 "value_gate": jax.tree.map(np.zeros_like, attention["value_gate"])}
    params = {**params, name: attention}
  out = module.apply({"params": params}, *data)
  expected = cross_attention(params["search_attention"], search, template)
  np.testing.assert_allclose(out["search_attended"], expected, atol=1e-5)
  expected = cross_attention(params["template_attention"], template, search)
  np.testing.assert_allclose(out["template_attended"], expected, atol=1e-5)


def test_intensity_weights_start_at_zero(sten):
  module, _, data = sten
  params = jax.jit(module.init)(jax.random.key(1), *data)["params"]
  for name in ("search_attention", "template_attention"):
    assert not params[name]["alpha"].any()
    assert not params[name]["value_gate"]["kernel"].any() and not params[name]["value_gate"]["bias"].any()


def test_intensity_bias_and_gate_follow_the_formula(sten):
  """softmax(Q K^T / sqrt(d) + alpha_h . I_key) (V (1 + tanh(conv I_key)))."""
  module, params, data = sten
  template, search, template_intensity, _ = data
  attention = params["search_attention"]
  flat = template_intensity.reshape(2, -1, SCALES)
  bias = np.stack([flat @ attention["alpha"][h] for h in range(HEADS)], 1)
  padded = np.pad(template_intensity, ((0, 0), (1, 1), (1, 1), (0, 0)))
  convolved = np.zeros((2, 3, 3, D)) + attention["value_gate"]["bias"]
  for i in range(3):
    for j in range(3):
      convolved += padded[:, i:i + 3, j:j + 3] @ attention["value_gate"]["kernel"][i, j]
  gate = (1 + np.tanh(convolved)).reshape(2, -1, D)
  out = module.apply({"params": params}, *data)["search_attended"]
  np.testing.assert_allclose(out, cross_attention(attention, search, template, bias, gate), atol=1e-5)
  assert np.abs(out - cross_attention(attention, search, template)).max() > 0.01


def test_intensity_can_be_switched_off(sten):
  _, params, data = sten
  module = IntensityAttention(HEADS, use_intensity=False)
  plain = {name: params["search_attention"][name] for name in ("query", "key", "value")}
  assert set(module.init(jax.random.key(0), data[1], data[0], data[2])["params"]) == set(plain)
  out = module.apply({"params": plain}, data[1], data[0], data[2])
  np.testing.assert_allclose(out, cross_attention(plain, data[1], data[0]), atol=1e-5)


def test_sten_starts_as_the_identity(sten):
  module, _, data = sten
  out, _ = jax.jit(module.init_with_output)(jax.random.key(2), *data)
  np.testing.assert_allclose(out["mixed_template"], data[0], atol=1e-6)
  np.testing.assert_allclose(out["search"], data[1], atol=1e-6)


def test_dsfam_starts_as_the_mean_of_the_levels():
  levels = {level: random(level, 2, 9, 9, D) for level in (2, 3, 4)}
  template, mask = random(5, 2, 7, 7, D), dcfam.box_mask(jnp.array([[20.0, 30.0], [9.0, 9.0]]), 7)
  out, _ = jax.jit(DSFAM().init_with_output)(jax.random.key(0), levels, template, mask)
  np.testing.assert_allclose(out["search"], sum(levels.values()) / 3, atol=1e-6)
  np.testing.assert_allclose(out["branch_weights"].sum(-1), 1, atol=1e-5)


def test_dsfam_is_guided_by_the_target():
  """The similarity is the cosine between the template's descriptor inside the box and each cell."""
  levels = {level: random(level, 1, 9, 9, D) for level in (2, 3, 4)}
  template, mask = random(5, 1, 7, 7, D), dcfam.box_mask(jnp.array([[24.0, 8.0]]), 7)  # Exactly 3x1 cells.
  out, _ = jax.jit(DSFAM().init_with_output)(jax.random.key(0), levels, template, mask)
  similarity = out["guidance"][0, ..., 0]
  descriptor, mean = template[0, 3, 2:5].mean(0), sum(levels.values())[0] / 3
  cosine = mean @ descriptor / np.linalg.norm(mean, axis=-1) / np.linalg.norm(descriptor)
  np.testing.assert_allclose(similarity, cosine, atol=1e-5)


@pytest.fixture(scope="module")
def fused():
  """(parameters, initial parameters, template, mixed template, mask) of DCFAM."""
  template, mixed = random(0, 2, 7, 7, D), random(1, 2, 7, 7, D)
  mask = dcfam.box_mask(jnp.array([[20.0, 11.0], [3.0, 40.0]]), 7)
  initial = dcfam.DCFAM().init(jax.random.key(0), template, mixed, mask)["params"]
  return small.random_params(dcfam.DCFAM(), template, mixed, mask, seed=2), initial, template, mixed, mask


def test_dcfam_ignores_what_lies_outside_the_box(fused):
  params, _, template, mixed, mask = fused
  inside = np.asarray(mask > 0)
  assert 0 < inside.mean() < 0.5
  changed = np.where(inside, mixed, 1e3 * random(9, *mixed.shape))

  def apply(x):
    return np.asarray(dcfam.DCFAM().apply({"params": params}, template, x, mask))

  np.testing.assert_array_equal(apply(changed), apply(mixed))
  changed = np.where(inside, mixed + 1, mixed)
  difference = np.abs(apply(changed) - apply(mixed)).max(-1, keepdims=True)
  assert (difference[inside] > 1e-3).all() and (difference[~inside] < 1e-5).all()  # Rounding.


def test_dcfam_outside_the_box_is_the_original_template(fused):
  params, _, template, mixed, mask = fused
  out = dcfam.DCFAM().apply({"params": params}, template, mixed, mask)
  outside = ~np.broadcast_to(mask > 0, template.shape)
  np.testing.assert_allclose(out[outside], template[outside], atol=1e-5)


def test_dcfam_starts_as_the_mean_of_the_templates(fused):
  """1/2 each, the mixed one through a mask that starts nearly open inside the box."""
  _, initial, template, mixed, mask = fused
  opened = {**initial, "mask": {"kernel": np.zeros_like(initial["mask"]["kernel"]), "bias": np.full(1, 50.0)}}
  out = dcfam.DCFAM().apply({"params": opened}, template, mixed, mask)
  np.testing.assert_allclose(out, template + mask * (mixed - template) / 2, atol=1e-5)
  np.testing.assert_allclose(dcfam.DCFAM().apply({"params": initial}, template, template, mask), template, atol=1e-6)
  assert initial["mask"]["bias"] == 2.0  # sigmoid(2) = 0.88


@pytest.mark.parametrize("side", [7, 4])
def test_box_mask_is_the_covered_area(side):
  """Against counting sub-pixels of 1/16 in every cell."""
  rng = np.random.default_rng(side)
  wh = np.concatenate([rng.uniform(0.5, 70, (20, 2)), [[8.0, 8.0], [500, 3]]])
  fine = (np.arange(side * 8 * 16) + 0.5) / 16 - side * 4  # Pixels from the centre.

  def inside(length):
    return (np.abs(fine) < length / 2).reshape(side, -1).mean(1)

  expected = np.stack([np.outer(inside(h), inside(w)) for w, h in wh])
  np.testing.assert_allclose(dcfam.box_mask(jnp.asarray(wh), side)[..., 0], expected, atol=1 / 32)
  assert dcfam.box_mask(jnp.array([[8.0 * side, 8.0]]), side).sum() == pytest.approx(side)


def contrast_by_pixel(image, template_side, scale, y, x):
  """|mean(inner) - mean(ring)| / std(ring) around pixel (y, x), pixel by pixel."""
  width = template_side * scale
  width = min((w for w in range(1, 200, 2)), key=lambda w: abs(w - width))
  inner, ring = [], []
  for i in range(image.shape[0]):
    for j in range(image.shape[1]):
      distance = max(abs(i - y), abs(j - x))
      if distance <= (width - 1) // 2:
        inner.append(image[i, j])
      elif distance <= (3 * width - 1) // 2:
        ring.append(image[i, j])
  return abs(np.mean(inner) - np.mean(ring)) / max(np.std(ring), 2 / 255)


@pytest.mark.parametrize("side, cells", [(63, [(0, 0), (3, 3), (6, 2)]), (127, [(7, 7), (14, 0), (4, 11)])])
def test_intensity_prior_equals_the_pixel_loop(side, cells):
  image = small.inputs(5)[0 if side == 63 else 2][:1]
  maps = intensity.intensity_prior(image, 63)
  assert maps.shape == (1, side // 8, side // 8, len(intensity.SCALES))
  for row, column in cells:
    y, x = 8 * row + 7, 8 * column + 7  # The cell's pixel; four points around it are averaged.
    for s, scale in enumerate(intensity.SCALES):
      points = [contrast_by_pixel(image[0, ..., 0].astype(np.float64), 63, scale, y + dy, x + dx)
                for dy in (-2, 2) for dx in (-2, 2)]
      assert maps[0, row, column, s] == pytest.approx(np.log1p(np.mean(points)), rel=1e-3)


def test_intensity_prior_sees_hot_and_cold_alike():
  image = small.inputs(6)[2]
  np.testing.assert_allclose(intensity.intensity_prior(1 - image, 63), intensity.intensity_prior(image, 63), atol=1e-3)
  spot = np.full((1, 127, 127, 1), 0.5, np.float32)
  spot[0, 60:67, 36:43] += 0.2  # Centre at pixel (63, 39): cell (7, 4).
  hot, cold = (intensity.intensity_prior(x, 63) for x in (spot, 1 - spot))
  np.testing.assert_allclose(hot, cold, atol=1e-4)
  for s in (0, 1):
    assert np.unravel_index(np.argmax(hot[0, ..., s]), (15, 15)) == (7, 4)


def test_intensity_prior_of_a_flat_crop_is_zero():
  for level in (0.0, 0.3, 1.0):
    assert np.abs(intensity.intensity_prior(jnp.full((1, 63, 63, 1), level), 63)).max() < 1e-3


@pytest.fixture(scope="module")
def gradients():
  """A function batch -> gradients of the task losses plus all outputs, at a random point of the parameters."""
  config = small.config()
  model = build(config.model)

  @jax.jit
  def grads(params, batch):
    def loss(params):
      out = model.apply({"params": params}, *network_inputs(batch, False), train=True)
      counts = losses.label_counts(batch, small.RESPONSE_CELLS, small.SEARCH_SIDE)
      terms = losses.task_losses(out, batch, counts, config.loss, small.SEARCH_SIDE)
      return sum(value for name, value in terms.items() if name.startswith("loss/"))
    return jax.grad(loss)(params)

  return lambda seed: small.random_params(model, *small.inputs(0), seed=seed), grads


def test_gradients_reach_every_parameter(gradients):
  params, grads = gradients
  total = jax.tree.map(np.zeros_like, params(0))
  for seed in range(3):  # A dead ReLU may hide an entry at one point, not at all.
    found = grads(params(seed), small.batch(seed, 4))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    total = jax.tree.map(lambda a, b: a + np.abs(b), total, found)
  dead = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(total)
          if not (x > 0).all() and (x > 0).mean() < 0.5]
  # The bias of a key or of the context's logit adds the same to all that one softmax sees, which cancels: 0 but for
  # rounding.
  weak = [jax.tree_util.keystr(path) for path, x in jax.tree_util.tree_leaves_with_path(total) if x.max() < 1e-7]
  cancels = ("['key']['bias']", "['context']['attention']['bias']")
  assert all(name.endswith(cancels) for name in dead + weak), dead + weak
  assert {name for name in total} == {"backbone", "neck", "head", "dsfam", "dcfam", "sten_2", "sten_3", "sten_4"}


def test_gradient_of_the_peak_is_finite_however_it_is_compiled():
  """`peak` equals max, and passes its gradient to exactly one entry, ties included."""
  x = np.maximum(random(0, 4, 9, 5), 0)
  x[0, :, 0] = 0
  for axis in (1, -1):
    np.testing.assert_array_equal(peak(x, axis), x.max(axis))
    slope = jax.grad(lambda x, axis=axis: peak(x, axis).sum())(x)
    np.testing.assert_array_equal(slope.sum(axis), 1)
    np.testing.assert_array_equal((slope * x).sum(axis), x.max(axis))


@pytest.mark.parametrize("grey", [0, 114, 255])
def test_gradients_are_finite_without_any_contrast(gradients, grey):
  """Saturated sky, or a negative window beyond the frame: crops of one grey level, without biases as at the start."""
  params, grads = gradients

  def unbiased(path, x):
    return np.zeros_like(x) if path[-1].key == "bias" else x

  params, batch = jax.tree_util.tree_map_with_path(unbiased, params(0)), small.batch(0, 4)
  for name in ("template", "search"):
    batch[name] = np.full_like(batch[name], grey)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads(params, batch)))
