"""The whole network: shapes, the feature grid, ablations, precision, and its two ways of being called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import small
from configs import base
from input_pipeline.errors import UserError
from siamdff_jax.models import devices, layers
from siamdff_jax.models.backbone import Lite, ResNet, feature_side
from siamdff_jax.models.build import build
from siamdff_jax.models.head import Head

BACKBONES = {
    "r18": dict(kind="resnet", blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), bottleneck=False, stem_kernel=7),
    "r34": dict(kind="resnet", blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), bottleneck=False, stem_kernel=7),
    "r50": dict(kind="resnet", blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), bottleneck=True, stem_kernel=7),
    "lite": dict(kind="lite", stages=((1, 16, 1), (2, 24, 4), (3, 48, 4), (2, 80, 4))),
}
SWITCHES = ("use_sten", "use_intensity", "use_dsfam", "use_dcfam")


def shapes_of(config, batch=2):
  """(variables, outputs) of shapes, without computing anything."""
  model = build(config.model)
  channels = 2 if model.prior_channel else 1

  template, search = (jax.ShapeDtypeStruct((batch, side, side, channels), jnp.float32)
                      for side in (model.template_side, model.search_side))
  init = jax.eval_shape(model.init_with_output, jax.random.key(0), template,
                        jax.ShapeDtypeStruct((batch, 2), jnp.float32), search)
  return init[1], init[0]


def count(params) -> int:
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def forward(config):
  """The jitted network: (params, inputs) -> outputs."""
  model = build(config.model)
  return jax.jit(lambda params, inputs: model.apply({"params": params}, *inputs))


@pytest.mark.parametrize("kind, search_side, cells, parameters", [
    # Backbones: ResNet-18/34/50 have 11.2, 21.3 and 23.5 million without their classifier (ours: one input channel).
    ("r18", 255, 31, 11.2e6), ("r34", 191, 23, 21.3e6), ("r50", 383, 47, 23.5e6), ("lite", 255, 31, None)])
def test_shapes_at_full_size(kind, search_side, cells, parameters):
  config = base.get_config()
  config.model.search_side = search_side
  config.model.backbone = BACKBONES[kind]
  variables, out = shapes_of(config)
  assert out["search_backbone"].keys() == {2, 3, 4}
  for level in (2, 3, 4):
    assert out["search_backbone"][level].shape[:3] == (2, cells, cells)
    assert out["template_backbone"][level].shape[:3] == (2, 15, 15)
    assert out["search"][level].shape == (2, cells, cells, 256)
    assert out["template"][level].shape == out["sten"][level]["mixed_template"].shape == (2, 7, 7, 256)
  response = cells - 6
  assert out["fused_search"].shape == (2, cells, cells, 256) and out["fused_template"].shape == (2, 7, 7, 256)
  assert out["response"].shape == (2, response, response, 256)
  for name, shape in (("class_logit", (response,) * 2), ("quality_logit", (response,) * 2),
                      ("ltrb", (response, response, 4)), ("presence_logit", ())):
    assert out[name].shape == (2, *shape) and out[name].dtype == jnp.float32
  if parameters:
    assert count(variables["params"]["backbone"]) == pytest.approx(parameters, rel=0.01)
  assert jax.tree.structure(variables["batch_stats"]["backbone"])


@pytest.mark.parametrize("side", [64, 256, 124])
def test_crop_sides_off_the_grid_are_refused(side):
  with pytest.raises(UserError, match=f"{side}.*8 n \\+ 7"):
    build(small.config(search_side=side).model)
  assert [feature_side(s) for s in (63, 127, 255)] == [7, 15, 31]


def test_unknown_backbone_and_norm_are_refused():
  config = small.config()
  config.model.backbone = dict(kind="vit")
  with pytest.raises(UserError, match=r"'vit'.*'resnet' or 'lite'"):
    build(config.model)
  with pytest.raises(UserError, match="layer"):
    shapes_of(small.config(norm="layer"))


TINY = {"resnet": ResNet((1, 1, 1, 1), (8, 8, 8, 8), norm="frozen_batch"),
        "resnet_stem3": ResNet((1, 1, 1, 1), (8, 8, 8, 8), stem_kernel=3, norm="frozen_batch"),
        "bottleneck": ResNet((1, 1, 1, 1), (4, 4, 4, 4), bottleneck=True, norm="frozen_batch"),
        "lite": Lite(((1, 4, 1), (2, 4, 2), (1, 4, 2), (1, 4, 2)), norm="frozen_batch")}


@pytest.mark.parametrize("kind", TINY)
def test_a_cell_lies_at_its_pixel(kind):
  """The pixels that a cell sees are centred at (S-1)/2 + 8 (k - (n-1)/2).

  With positive, symmetric kernels and no statistics every pixel's influence is positive and symmetric about the centre.
  """
  side, (row, column) = 383, (21, 26)
  image = jnp.full((1, side, side, 1), 0.5)
  variables = jax.eval_shape(lambda: TINY[kind].init(jax.random.key(0), image, False))

  def positive(path, x):
    return np.full(x.shape, 1 / np.prod(x.shape[:-1]) if path[-1].key == "kernel" else 0, np.float32)

  params = jax.tree_util.tree_map_with_path(positive, variables["params"])
  params = jax.tree_util.tree_map_with_path(lambda p, x: np.ones_like(x) if p[-1].key == "scale" else x, params)
  stats = jax.tree_util.tree_map_with_path(
      lambda path, x: np.full(x.shape, path[-1].key == "var", np.float32), variables["batch_stats"])

  @jax.jit
  def influence(image):
    def cell(image):
      levels = TINY[kind].apply({"params": params, "batch_stats": stats}, image, False)
      return sum(x[0, row, column].sum() for x in levels.values())
    return jax.grad(cell)(image)[0, ..., 0]

  axis = np.arange(side)
  y, x = (side - 1) / 2 + 8 * (row - 23), (side - 1) / 2 + 8 * (column - 23)
  # Brightest at the cell, so that the winners of the max-pooling are symmetric as well.
  dome = 2 - ((axis[:, None] - y) ** 2 + (axis - x) ** 2) / side**2
  found = np.asarray(influence(jnp.asarray(dome, jnp.float32)[None, ..., None]))
  assert found.min() >= 0 and found.sum() > 0
  seen = np.argwhere(found > 0)
  np.testing.assert_allclose((seen.min(0) + seen.max(0)) / 2, (y, x))
  found = found / found.sum()
  np.testing.assert_allclose(((found.sum(1) * axis).sum(), (found.sum(0) * axis).sum()), (y, x), atol=1e-2)


@pytest.fixture(scope="module")
def network():
  """(forward, random parameters) of the small network with all modules."""
  config = small.config()
  return forward(config), small.random_params(build(config.model), *small.inputs(0))


def test_mirrored_crops_give_mirrored_maps(network):
  """With kernels that are symmetric from left to right nothing in the network may prefer a side."""
  apply, params = network

  def symmetric(x):
    return (x + x[:, ::-1]) / 2 if x.ndim > 2 else x

  params = jax.tree.map(symmetric, params)
  template, wh, search = small.inputs(3)
  out = apply(params, (template, wh, search))
  mirrored = apply(params, (template[:, :, ::-1], wh, search[:, :, ::-1]))
  assert np.abs(out["class_logit"] - out["class_logit"][:, :, ::-1]).max() > 0.01
  for name in ("fused_search", "fused_template", "response", "class_logit", "quality_logit"):
    np.testing.assert_allclose(mirrored[name], out[name][:, :, ::-1], atol=2e-4, err_msg=name)
  np.testing.assert_allclose(mirrored["presence_logit"], out["presence_logit"], atol=2e-4)


def test_a_moved_target_moves_in_the_backbone(network):
  """A blob 16 pixels further right is 2 cells further right (away from the border, without global statistics)."""
  del network
  model = TINY["resnet_stem3"]
  axis = np.arange(127) - 63.0

  def blob(dx):
    return np.exp(-(axis[:, None] ** 2 + (axis - dx) ** 2) / 50)[None, ..., None].astype(np.float32)

  variables = jax.jit(model.init, static_argnums=2)(jax.random.key(0), blob(0), False)
  levels = jax.jit(lambda image: model.apply(variables, image, False)[2])
  here, moved = levels(blob(0)), levels(blob(16))
  np.testing.assert_allclose(moved[:, 3:-3, 5:-3], here[:, 3:-3, 3:-5], atol=1e-5)
  assert np.abs(here).max() > 0.1


@pytest.mark.parametrize("off", [*SWITCHES, "all"])
def test_each_ablation_leaves_a_smaller_working_network(network, off):
  _, params = network
  config = small.config(**{name: False for name in SWITCHES if off in (name, "all")})
  variables, _ = shapes_of(config)
  assert count(variables["params"]) < count(params)
  out = forward(config)(small.random_params(build(config.model), *small.inputs(0)), small.inputs(0))
  assert out["class_logit"].shape == (2, 9, 9) and np.isfinite(out["ltrb"]).all() and (out["ltrb"] > 0).all()
  assert np.ptp(out["class_logit"]) > 0
  if off == "all":
    assert set(variables["params"]) == {"backbone", "neck", "head"}
    np.testing.assert_allclose(out["fused_template"], sum(out["template"].values()) / 3, atol=1e-5)


def test_head_starts_with_rare_positives_and_boxes_of_half_a_template():
  response = np.random.default_rng(0).normal(size=(2, 9, 9, 16)).astype(np.float32)
  out, _ = jax.jit(Head(1, 63).init_with_output)(jax.random.key(0), response)
  np.testing.assert_allclose(out["class_logit"], np.log(0.01 / 0.99), atol=0.5)
  np.testing.assert_allclose(out["ltrb"], 63 / 4, rtol=0.5)


def test_prior_channel_is_one_more_input_channel(network):
  _, params = network
  variables, _ = shapes_of(small.config(prior_channel=True))
  kernel = variables["params"]["backbone"]["stem"]["kernel"]
  assert kernel.shape == (3, 3, 2, 8) and params["backbone"]["stem"]["kernel"].shape == (3, 3, 1, 8)


def test_template_once_then_many_searches(network):
  apply, params = network
  model = build(small.config().model)
  template, wh, search = small.inputs(1)
  whole = apply(params, (template, wh, search))
  encode = jax.jit(lambda p, t, wh: model.apply({"params": p}, t, wh, method="encode_template"))
  track = jax.jit(lambda p, e, s: model.apply({"params": p}, e, s, method="track"))
  encoded = encode(params, template, wh)
  for _ in range(2):  # The template's encoding is not used up.
    out = track(params, encoded, search)
    for name in ("class_logit", "quality_logit", "ltrb", "presence_logit"):
      np.testing.assert_allclose(out[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpu", "tpu"])
@pytest.mark.parametrize("backbone", ["resnet", "lite"])
def test_programs_for_all_kinds_of_devices_compute_the_same(kind, backbone):
  """Outputs and gradients of what is traced for accelerators, run here, against what is traced for the CPU."""
  config = small.config()
  if backbone == "lite":
    config.model.backbone = dict(kind="lite", stages=((1, 8, 1), (1, 8, 2), (1, 8, 2), (1, 8, 2)))
  model = build(config.model)
  inputs = small.inputs(0)
  params = small.random_params(model, *inputs)

  def loss(params):
    out = model.apply({"params": params}, *inputs)
    heads = [out[name] for name in ("class_logit", "quality_logit", "ltrb", "presence_logit")]
    return sum((x**2).mean() for x in heads), heads

  def run(kind):
    with devices.traced_for(kind):
      return jax.jit(jax.grad(lambda params: loss(params), has_aux=True))(params)

  found, wanted = run(kind), run("cpu")
  # Some gradients are nothing but rounding: a bias of all keys moves no softmax.
  scale = max(np.abs(x).max() for x in jax.tree.leaves(wanted[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), found, wanted)
  assert scale > 0


def test_examples_do_not_mix(network):
  """In inference an example's outputs do not depend on what else is in the batch."""
  apply, params = network
  inputs = small.inputs(1)
  other = tuple(np.concatenate([x[:1], y[1:]]) for x, y in zip(inputs, small.inputs(7), strict=True))
  a, b = apply(params, inputs), apply(params, other)
  np.testing.assert_allclose(a["ltrb"][0], b["ltrb"][0], rtol=1e-4)
  assert np.abs(a["ltrb"][1] - b["ltrb"][1]).max() > 1e-3


def test_bfloat16_computes_nearly_the_same(network):
  apply, params = network
  half = small.config(dtype="bfloat16")
  variables, shapes = shapes_of(half)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  for name in ("fused_search", "fused_template", "response"):
    assert shapes[name].dtype == jnp.bfloat16, name
  inputs = small.inputs(0)
  out, exact = forward(half)(params, inputs), apply(params, inputs)
  for name in ("class_logit", "quality_logit", "ltrb", "presence_logit"):
    assert out[name].dtype == jnp.float32
    np.testing.assert_allclose(out[name], exact[name], atol=0.1 * np.abs(exact[name]).max(), err_msg=name)


def test_remat_changes_nothing():
  """Recomputed activations: the same parameters, features and gradients."""
  image = small.inputs(0)[2]
  plain = TINY["resnet_stem3"].clone(norm="group")
  params = small.random_params(plain, image, train=True)
  results = []
  for model in (plain, plain.clone(remat=True)):
    def loss(params, model=model):
      return sum((x**2).mean() for x in model.apply({"params": params}, image, True).values())

    results.append(jax.jit(jax.value_and_grad(loss))(params))
  for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm, moves", [("batch", True), ("frozen_batch", False)])
def test_batch_statistics_move_only_when_asked(norm, moves):
  model = TINY["resnet_stem3"].clone(norm=norm)
  image = small.inputs(0)[0]
  variables = jax.jit(model.init, static_argnums=2)(jax.random.key(0), image, True)
  _, updates = jax.jit(lambda v: model.apply(v, image, True, mutable=["batch_stats"]))(variables)
  before = variables["batch_stats"]["stem"]["Norm_0"]["BatchNorm_0"]["mean"]
  after = updates["batch_stats"]["stem"]["Norm_0"]["BatchNorm_0"]["mean"] if moves else before
  assert bool(np.abs(after - before).max() > 1e-4) == moves
  if not moves:
    moved = updates.get("batch_stats", variables["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, moved, variables["batch_stats"])


def test_max_pool_is_that_of_flax():
  """Value and gradient, also with a row too many and with equal entries, where the first gets all of it."""
  rng = np.random.default_rng(0)
  for side in (9, 10):
    x = np.asarray(rng.integers(-2, 3, size=(2, side, side, 3)), np.float32)

    def theirs(x):
      return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")

    np.testing.assert_array_equal(layers.max_pool(x), theirs(x))
    gradients = [jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (layers.max_pool, theirs)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_a_pointwise_convolution_is_a_product():
  module = layers.ConvNorm(5, kernel=1, norm="group")
  x = np.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), np.float32)
  variables = module.init(jax.random.key(0), x, False)
  kernel = variables["params"]["Conv_0"]["kernel"]
  assert kernel.shape == (1, 1, 3, 5)
  convolved = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  normalised = nn.GroupNorm(1).apply({"params": variables["params"]["Norm_0"]["GroupNorm_0"]}, convolved)
  np.testing.assert_allclose(module.apply(variables, x, False), nn.relu(normalised), atol=1e-5)
