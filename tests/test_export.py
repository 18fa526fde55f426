"""Exports and imports: weights in one file, StableHLO, what `--checkpoint` means, PyTorch's ResNets."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from configs import base
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import safetensors, trained
from siamdff_jax.export import formats, onnx, passes, stablehlo
from siamdff_jax.models.backbone import ResNet
from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables, load_model
from siamdff_jax.tracking.tracker import Tracker
from siamdff_jax.training import torch_weights
from siamdff_jax.training.state import TrainState


def tiny_config():
  config = base.get_config()
  config.model.update(template_side=63, search_side=63, heads=1, tower_depth=1, norm="batch", features=8)
  config.model.backbone.update(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4), stem_kernel=3)
  config.data.train.clips = dict(format="antiuav", root="/somebody/data", weight=1.0)
  return config


def noise(expected, seed=0):
  rng = np.random.default_rng(seed)

  def draw(path, x):
    if path[-1].key in ("var", "scale"):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    return rng.normal(0, 1 / np.sqrt(max(1, np.prod(x.shape[:-1]))), x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, expected)


@pytest.fixture(scope="module")
def model():
  config = tiny_config()
  network = build(config.model)
  return config, network, noise(abstract_variables(network))


@pytest.fixture
def live(model):
  if jax.default_backend() != "cpu":
    pytest.skip("exports are made on the CPU (JAX_PLATFORMS=cpu)")
  _, network, variables = model
  return passes.from_tracker(Tracker(network), variables)


def flat(tree):
  return traverse_util.flatten_dict(tree, sep="/")


def assert_same(a, b, **tolerance):
  assert flat(a).keys() == flat(b).keys()
  for name, value in flat(a).items():
    np.testing.assert_allclose(value, flat(b)[name], err_msg=name, **({"rtol": 0} | tolerance))


def test_weights_round_trip_exactly_in_float32_and_to_half_precision_in_float16(model, tmp_path):
  config, _, variables = model
  for dtype, tolerance in (("float32", 0.0), ("float16", 2**-11)):
    path = str(tmp_path / f"{dtype}.safetensors")
    safetensors.save(path, config, variables, dtype, {"licence": "CC0"})
    loaded_config, loaded = safetensors.load(path)
    assert_same(variables, loaded, rtol=tolerance, atol=1e-7 * (dtype == "float16"))
    assert {x.dtype for x in flat(loaded).values()} == {np.dtype(np.float32)}
    assert json.loads(loaded_config.to_json_best_effort()) == json.loads(config.to_json_best_effort())
    assert json.loads(safetensors.read_arrays(path)[1]["siamdff_jax"])["notes"] == {"licence": "CC0"}
  vectors = {name: x for name, x in flat(variables).items() if x.ndim < 2}
  assert all((flat(loaded)[name] == x).all() for name, x in vectors.items())  # Exact also in the float16 file.


def test_same_weights_give_the_same_bytes_whatever_the_order(model, tmp_path):
  config, _, variables = model
  backwards = traverse_util.unflatten_dict(dict(reversed(flat(variables).items())), sep="/")
  for name, tree in (("a", variables), ("b", backwards)):
    safetensors.save(str(tmp_path / f"{name}.safetensors"), config, tree, notes={"x": "1", "y": "2"})
  assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_value_too_large_for_float16_is_refused(model, tmp_path):
  config, _, variables = model
  big = jax.tree.map(lambda x: x * np.float32(1e6), variables)
  with pytest.raises(UserError, match="not finite in float16"):
    safetensors.save(str(tmp_path / "x.safetensors"), config, big)
  assert not list(tmp_path.iterdir())


def test_every_damage_is_found(tmp_path):
  config, path = tiny_config(), tmp_path / "x.safetensors"
  variables = {"params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "batch_stats": {}}
  safetensors.save(str(path), config, variables)
  good = path.read_bytes()
  rng = np.random.default_rng(0)
  for _ in range(300):
    bad = bytearray(good)
    kind = rng.integers(3)
    if kind == 0:
      bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    elif kind == 1:
      bad = bad[:rng.integers(len(bad))]
    else:
      at = rng.integers(len(bad))
      bad[at:at + 8] = rng.bytes(8)
    path.write_bytes(bad)
    try:
      loaded = safetensors.load(str(path))[1]
    except UserError as error:
      assert str(path) in str(error)
    else:  # Only where the damage does not matter, as in the header's padding.
      assert_same(variables, loaded)


def test_files_that_are_no_models_are_refused(model, tmp_path):
  config, _, variables = model
  other = str(tmp_path / "other.safetensors")
  save_file({"a": np.zeros(3, np.float32)}, other)
  with pytest.raises(UserError, match="no training config"):
    safetensors.load(other)
  with pytest.raises(UserError, match="no such file"):
    safetensors.load(str(tmp_path / "none.safetensors"))
  wrong = config.copy_and_resolve_references()
  wrong.model.features = 16
  path = str(tmp_path / "wrong.safetensors")
  safetensors.save(path, wrong, variables)
  with pytest.raises(UserError, match="does not fit the config"):
    load_model(path)


def test_a_checkpoint_may_be_a_file_or_the_name_of_a_shipped_model(model, tmp_path, monkeypatch):
  config, _, variables = model
  monkeypatch.setattr(trained, "_SHIPPED", tmp_path)
  safetensors.save(str(tmp_path / "smallest.safetensors"), config, variables, "float32")
  for name in ("smallest", str(tmp_path / "smallest.safetensors")):
    network, loaded = load_model(name)
    assert network.features == 8
    assert_same(variables, loaded)
  with pytest.raises(UserError, match=r"largest: no checkpoint there.*smallest"):
    trained.find("largest")


def test_shipped_config_names_no_paths(tmp_path):
  config = tiny_config()
  config.teacher.checkpoint = config.data.records = "/somebody/teacher"
  stripped = formats.without_paths(config)
  assert "/somebody" not in stripped.to_json_best_effort() and "/somebody" in config.to_json_best_effort()
  assert stripped.model == config.model


def test_stablehlo_equals_the_live_network_at_another_batch_size(model, live, tmp_path):
  _, network, variables = model
  stablehlo.export(live, str(tmp_path))
  exported = stablehlo.load(str(tmp_path))
  inputs = passes.random_inputs(live, batch=2)
  encoded = exported["template"](inputs["template"], inputs["template_wh"])
  out = exported["search"](*encoded, inputs["search"])
  direct = jax.jit(network.apply)(variables, inputs["template"], inputs["template_wh"], inputs["search"])
  for name, value in zip(passes.OUTPUTS, out, strict=True):
    np.testing.assert_allclose(value, direct[name], rtol=1e-4, atol=1e-5, err_msg=name)

  manifest = json.loads((tmp_path / "manifest.json").read_text())
  assert manifest["passes"]["search"]["inputs"][-1] == {
      "name": "search", "shape": ["batch", 63, 63, 1], "dtype": "float32"}
  assert [x["name"] for x in manifest["passes"]["template"]["outputs"]] == list(passes.ENCODED)
  assert manifest["tracker"] == Tracker(network).settings.to_dict()

  (tmp_path / "search.stablehlo").write_bytes(b"nonsense")
  with pytest.raises(UserError, match=r"search\.stablehlo"):
    stablehlo.load(str(tmp_path))


def test_a_comparison_sees_a_wrong_export():
  def template(image, wh):
    return tuple(image.sum((1, 2, 3)) * (i + 1) / 9 for i in range(len(passes.ENCODED)))

  def search(*arrays):
    return tuple(arrays[i] + arrays[-1].sum((1, 2, 3)) for i in range(len(passes.OUTPUTS)))

  inputs = {"template": {"template": (3, 3, 1), "template_wh": (2,)}, "search": {"search": (3, 3, 1)}}
  live = passes.Passes({"template": template, "search": search}, inputs, {}, {})
  assert max(passes.max_differences(live, live.functions, batch=3).values()) <= 1e-6
  off = {"template": template, "search": lambda *arrays: [1.01 * x for x in search(*arrays)]}
  differences = passes.max_differences(live, off, batch=3)
  assert all(differences[name] == pytest.approx(0.01, rel=0.01) for name in passes.OUTPUTS)
  short = {"template": template, "search": lambda *arrays: [x[:1] for x in search(*arrays)]}
  with pytest.raises(UserError, match="class_logit has shape"):
    passes.max_differences(live, short, batch=3)


def test_a_missing_extra_is_named(model, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
  with pytest.raises(UserError, match=r"pip install --no-deps -r requirements-export\.txt"):
    onnx.export(None, str(tmp_path))


def test_onnx_equals_the_live_network(live, tmp_path):
  pytest.importorskip("jax2onnx", reason="the extra of requirements-export.txt is not installed")
  onnx.export(live, str(tmp_path))
  assert max(passes.max_differences(live, onnx.load(live, str(tmp_path)), batch=2).values()) <= onnx.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "savedmodel", "tflite"])
def test_other_formats_equal_the_live_network(model, live, tmp_path, kind):
  config, _, variables = model
  del live  # For its skip.
  source = str(tmp_path / "model.safetensors")
  safetensors.save(source, config, variables, "float32")
  out = str(tmp_path / ("out.safetensors" if kind == "safetensors" else "out"))
  differences, tolerance = formats.export(source, kind, out)
  assert max(differences.values()) <= tolerance


# PyTorch's ResNets, by torchvision's definition.


def torch_resnet_shapes(blocks, bottleneck, widths=(64, 128, 256, 512), stem=7):
  """{name: shape} of a torchvision ResNet's state dict."""
  shapes = {"fc.weight": (10, widths[-1]), "fc.bias": (10,)}

  def norm(name, channels):
    shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})
    shapes[f"{name}.num_batches_tracked"] = ()

  shapes["conv1.weight"] = (widths[0], 3, stem, stem)
  norm("bn1", widths[0])
  inputs = widths[0]
  for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
    outputs = width * (4 if bottleneck else 1)
    for block in range(count):
      prefix = f"layer{stage}.{block}"
      kernels = ((width, inputs, 1), (width, width, 3), (outputs, width, 1)) if bottleneck else (
          (width, inputs, 3), (width, width, 3))
      for i, (out, into, k) in enumerate(kernels, 1):
        shapes[f"{prefix}.conv{i}.weight"] = (out, into, k, k)
        norm(f"{prefix}.bn{i}", out)
      if inputs != outputs:
        shapes[f"{prefix}.downsample.0.weight"] = (outputs, inputs, 1, 1)
        norm(f"{prefix}.downsample.1", outputs)
      inputs = outputs
  return shapes


def expected_backbone(**options):
  backbone = ResNet(norm="frozen_batch", **options)
  shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, 63, 63, 1)), False))
  return backbone, shapes


@pytest.mark.parametrize("blocks, bottleneck", [((2, 2, 2, 2), False), ((3, 4, 6, 3), False), ((3, 4, 6, 3), True)])
def test_every_array_of_resnet_18_34_and_50_has_its_place(blocks, bottleneck):
  numbers = itertools.count(1)
  state_dict = {name: np.broadcast_to(np.float32(next(numbers)), shape)
                for name, shape in torch_resnet_shapes(blocks, bottleneck).items()}
  _, expected = expected_backbone(blocks=blocks, bottleneck=bottleneck)
  got = torch_weights.backbone_variables(state_dict, expected)
  assert jax.tree.map(lambda x: x.shape, got) == jax.tree.map(lambda x: x.shape, dict(expected))
  placed = sorted(float(x.reshape(-1)[0]) for name, x in flat(got).items() if name != "params/stem/kernel")
  wanted = sorted(float(x.reshape(-1)[0]) for name, x in state_dict.items()
                  if not name.startswith(("fc.", "conv1.")) and not name.endswith("num_batches_tracked"))
  assert placed == wanted  # Each one once.
  last = "stage4_block1/ConvNorm_1"
  assert flat(got)[f"batch_stats/{last}/Norm_0/BatchNorm_0/var"][0] == state_dict["layer4.1.bn2.running_var"][0]
  assert flat(got)[f"params/{last}/Conv_0/kernel"][0, 0, 0, 0] == state_dict["layer4.1.conv2.weight"][0, 0, 0, 0]


def convolve(x, kernel, stride=1, dilation=1, pad=0):
  """x [C, H, W], kernel OIHW, by the definition."""
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
  k = kernel.shape[2]
  reach = dilation * (k - 1) + 1
  rows, cols = (x.shape[1] - reach) // stride + 1, (x.shape[2] - reach) // stride + 1
  out = np.zeros((kernel.shape[0], rows, cols))
  for i, j in itertools.product(range(k), range(k)):
    y0, x0 = i * dilation, j * dilation
    window = x[:, y0:y0 + stride * rows:stride, x0:x0 + stride * cols:stride]
    out += np.tensordot(kernel[:, :, i, j], window, 1)
  return out


def torch_forward(weights, image, blocks, bottleneck):
  """The ResNet on an image [3, H, W] from PyTorch's arrays, with our padding and dilation. -> stage 4 [C, h, w]."""
  def norm(x, name):
    def column(part):
      return weights[f"{name}.{part}"][:, None, None]

    return (x - column("running_mean")) / np.sqrt(column("running_var") + 1e-5) * column("weight") + column("bias")

  def relu(x):
    return np.maximum(x, 0)

  x = relu(norm(convolve(image, weights["conv1.weight"], 2, pad=2), "bn1"))
  side = (x.shape[1] - 3) // 2 + 1
  x = np.max([x[:, i:i + 2 * side:2, j:j + 2 * side:2][:, :side, :side] for i in range(3) for j in range(3)], axis=0)
  for stage, count in enumerate(blocks, 1):
    dilation = {3: 2, 4: 4}.get(stage, 1)
    for block in range(count):
      name, y = f"layer{stage}.{block}", x
      stride = 2 if stage == 2 and block == 0 else 1
      for i in range(1, 4 if bottleneck else 3):
        kernel = weights[f"{name}.conv{i}.weight"]
        step = stride if i == (2 if bottleneck else 1) else 1
        wide = kernel.shape[2] == 3
        y = convolve(y, kernel, step, dilation if wide else 1, dilation if wide and step == 1 else 0)
        y = norm(y, f"{name}.bn{i}")
        y = y if i == (3 if bottleneck else 2) else relu(y)
      if stride == 2:
        x = x[:, 1:-1:2, 1:-1:2]
      if f"{name}.downsample.0.weight" in weights:
        x = norm(convolve(x, weights[f"{name}.downsample.0.weight"]), f"{name}.downsample.1")
      x = relu(x + y)
  return x


@pytest.mark.parametrize("bottleneck", [False, True])
def test_imported_backbone_computes_what_pytorchs_arrays_mean(bottleneck):
  blocks, widths = (1, 2, 1, 1), (4, 5, 6, 7)
  rng = np.random.default_rng(0)
  weights = {}
  for name, shape in torch_resnet_shapes(blocks, bottleneck, widths).items():
    positive = name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight"))
    spread = 1 / np.sqrt(max(1, np.prod(shape[1:])))
    weights[name] = (rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, spread, shape)).astype(np.float32)
  backbone, expected = expected_backbone(blocks=blocks, bottleneck=bottleneck, widths=widths)
  variables = torch_weights.backbone_variables(weights, expected)
  grey = rng.normal(size=(63, 63)).astype(np.float32)
  ours = jax.jit(backbone.apply, static_argnums=2)(variables, grey[None, :, :, None], False)[4][0]
  theirs = torch_forward(weights, np.stack([grey] * 3), blocks, bottleneck)
  np.testing.assert_allclose(ours, theirs.transpose(1, 2, 0), rtol=1e-3, atol=1e-4)


def test_stem_sums_the_channels_and_leaves_a_privileged_one_at_zero():
  state_dict = {name: np.random.default_rng(1).random(shape, np.float32)
                for name, shape in torch_resnet_shapes((1, 1, 1, 1), False, (4, 4, 4, 4)).items()}
  _, expected = expected_backbone(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4))
  expected["params"]["stem"]["kernel"] = jax.ShapeDtypeStruct((7, 7, 2, 4), jnp.float32)
  kernel = torch_weights.backbone_variables(state_dict, expected)["params"]["stem"]["kernel"]
  for y, x, out in ((0, 6, 1), (3, 2, 3)):
    assert kernel[y, x, 0, out] == pytest.approx(sum(state_dict["conv1.weight"][out, c, y, x] for c in range(3)))
  assert (kernel[:, :, 1] == 0).all()


def test_what_does_not_fit_is_listed():
  shapes = torch_resnet_shapes((1, 1, 1, 1), False, (4, 4, 4, 4))
  state_dict = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  _, expected = expected_backbone(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4))
  less = {name: x for name, x in state_dict.items() if name != "bn1.bias"} | {"layer1.9.conv1.weight": np.zeros(1)}
  with pytest.raises(UserError, match=r"missing: bn1\.bias; unexpected: layer1\.9\.conv1\.weight"):
    torch_weights.backbone_variables(less, expected)
  wrong = state_dict | {"layer2.0.conv1.weight": np.zeros((4, 8, 3, 3))}
  with pytest.raises(UserError, match=r"layer2\.0\.conv1\.weight gives \(3, 3, 8, 4\), expected \(3, 3, 4, 4\)"):
    torch_weights.backbone_variables(wrong, expected)
  with pytest.raises(UserError, match="frozen_batch"):
    torch_weights.backbone_variables(state_dict, {"params": expected["params"]})


def test_training_starts_from_imported_weights_and_only_the_backbone_changes(tmp_path):
  shapes = torch_resnet_shapes((1, 1, 1, 1), False, (4, 4, 4, 4))
  weights = {name: np.random.default_rng(2).random(shape, np.float32) for name, shape in shapes.items()}
  path = str(tmp_path / "resnet.safetensors")
  save_file(weights, path)
  _, expected = expected_backbone(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), expected)
  student = {"backbone": zeros["params"], "head": {"bias": jnp.ones(3)}}
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(step=zero, params={"student": student, "distiller": {"a": jnp.ones(2)}}, opt_state=(),
                     batch_stats={"backbone": zeros["batch_stats"], "neck": jnp.ones(1)}, ema=student, bad_steps=zero)
  started = torch_weights.start_from(state, path)
  assert jax.tree.structure(started) == jax.tree.structure(state)
  wanted = torch_weights.backbone_variables(weights, expected)
  for params in (started.params["student"], started.ema):
    assert_same(wanted["params"], params["backbone"])
    assert (params["head"]["bias"] == 1).all()
  assert_same(wanted["batch_stats"], started.batch_stats["backbone"])
  buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(
      (started.params["student"]["backbone"], started.ema["backbone"]))]
  assert len(set(buffers)) == len(buffers)  # The training step donates its state.
