"""Virtual shards: the same bits on any number of devices, in both layouts."""

import concurrent.futures
import functools
import multiprocessing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small
from input_pipeline.errors import UserError
from siamdff_jax.models.build import build
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training import gradients
from siamdff_jax.training.state import optimizer
from siamdff_jax.training.step import make_step

SHARDS, STEPS = 8, 3
SHIFTS = 5


def example_batch(n: int) -> dict[str, np.ndarray]:
  """A batch of 16 with the examples' numbers."""
  return small.batch(n, 16) | {"index": np.arange(16 * n, 16 * (n + 1), dtype=np.int32)}


def augment(examples, replicated, step_number):
  """Noise, a gain and a shift between pixels (as a product with a matrix) for every example, by its number."""
  def one(image, index):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), index), step_number)
    rows = jnp.arange(len(image)) + jax.random.uniform(key)
    matrix = jnp.maximum(1 - jnp.abs(rows[:, None] - jnp.arange(len(image))), 0)
    image = jnp.einsum("ij,jkc->ikc", matrix, image.astype(jnp.float32), precision="highest")
    gain = replicated["gains"][index % SHIFTS]
    return jnp.clip(gain * image + 4 * jax.random.normal(key, image.shape), 0, 255)

  made = {name: jax.vmap(one)(examples[name], examples["index"]) for name in ("template", "search")}
  return {name: made.get(name, x) for name, x in examples.items() if name != "index"}


def small_config(norm: str, shards: int = SHARDS, **model):
  config = small.config(norm=norm, **(small.PLAIN | model))
  config.optimizer.update(kind="adamw", learning_rate=1e-3, warmup_steps=2)
  config.train.update(virtual_shards=shards, batch_size=16)
  return config


def train(config, kind: str, devices: int, distiller=None, teacher=None, variables=None, initial=None):
  """(the last state, the metrics of all steps) as numpy."""
  config.layout.kind = kind
  layout = parallel.make_layout(config.layout, 16, jax.devices("cpu")[:devices], config.train.virtual_shards)
  step = make_step(build(config.model, layout.norm_axis), optimizer(config.optimizer, config.train.steps), config,
                   axis_name=layout.axis_name, distiller=distiller, teacher=teacher)
  compiled = layout.compile(step, augment)
  gains = layout.put_replicated({"gains": np.linspace(0.8, 1.2, SHIFTS, dtype=np.float32)})
  state, metrics = layout.put_state(initial or small.start_state(config)), []
  variables = layout.put_state(variables)
  for n in range(STEPS):
    state, found = compiled(state, layout.put_sharded(example_batch(n)), gains, variables)
    metrics.append(jax.device_get(found))
  return jax.device_get(state), metrics


@functools.cache
def trained(kind: str, devices: int, norm: str = "batch", shards: int = SHARDS):
  return train(small_config(norm, shards), kind, devices)


def assert_same_bits(found, expected):
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), jax.tree_util.keystr(path)


def assert_trained(found):
  state, metrics = found
  assert state.step == STEPS and state.bad_steps == 0
  assert all(np.isfinite(m["loss"]) and m["grad_norm"] > 0 for m in metrics)


ALL = [(kind, devices) for kind in ("pmap", "mesh") for devices in (1, 2, 4, 8)]
FAST = [("pmap", 2), ("mesh", 8)]  # The first is what the others are compared with.


@pytest.mark.parametrize(
    "kind,devices", [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in ALL])
def test_any_device_count_gives_the_same_bits(kind, devices):
  """Data prepared on the device, batch statistics, gradients, optimizer: 3 steps, compared with two devices."""
  assert_trained(trained("pmap", 2))
  assert_same_bits(trained(kind, devices), trained("pmap", 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pmap", "mesh"])
def test_with_group_normalisation(kind):
  expected = trained("pmap", 2, "group")
  assert_trained(expected)
  for devices in (1, 4, 8):
    assert_same_bits(trained(kind, devices, "group"), expected)


@pytest.fixture
def all_optimizations():
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.parametrize("kind,devices", [("pmap", 8), ("mesh", 1)])
def test_with_all_of_the_compilers_optimizations(all_optimizations, kind, devices):
  expected = train(small_config("batch"), "pmap", 2)
  assert_trained(expected)
  assert_same_bits(train(small_config("batch"), kind, devices), expected)


def distilled():
  """What `train` gives with a distiller, on two devices and on eight."""
  config = small_config("batch")
  config.distiller.update(kind="contextual", weight=2.0)
  teacher_config = small_config("group", features=24, prior_channel=True)
  _, teacher, variables, distiller, distiller_params = small.distillation_of(config, teacher_config)
  return [train(config, kind, devices, distiller, teacher, variables, small.start_state(config, distiller_params))
          for kind, devices in (("pmap", 2), ("mesh", 8))]


@pytest.mark.slow
def test_with_a_distiller(monkeypatch):
  """Every term in the metrics, the distiller's parameters included in what is compared.

  With the emitters that users have, hence in another process: those of conftest.py fuse the distiller's gradients in
  another way where a device has one shard only, which has no loop about it.
  """
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
  with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
    found = process.submit(distilled).result()
  assert_trained(found[0])
  assert {name for name in found[0][1][0] if "distill" in name}
  assert_same_bits(*found)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_whole_batch():
  """Without batch statistics the shards only change the order of summation: one step, close to no shards at all."""
  whole, cut = (trained("pmap", 8, "group", shards)[1][0] for shards in (0, SHARDS))
  assert whole.keys() == cut.keys()
  for name in whole:
    assert cut[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_the_mean_is_added_up_in_order():
  """Of numbers whose sum depends on the order, on one device and by collectives over eight."""
  rng = np.random.default_rng(0)
  tree = {name: (rng.normal(size=(8, *shape)) * 10.0 ** rng.integers(-6, 7, (8, *shape))).astype(np.float32)
          for name, shape in dict(a=(3, 5), b=(), c=(7,)).items()}

  def mean(x):
    return sum(x[1:], start=x[0]) / np.float32(8)

  def mapped(**axes):
    return jax.pmap(lambda x: gradients.ordered_mean(x, "data"), "data", out_axes=None, **axes)

  alone = jax.jit(lambda x: gradients.ordered_mean(x, None))(tree)
  four = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), tree)
  for found in (alone, mapped(devices=jax.devices("cpu")[:4])(four)):
    for name, x in tree.items():
      assert np.asarray(found[name]).tobytes() == np.asarray(mean(x), np.float32).tobytes(), name
  assert any((mean(x) != mean(x[::-1])).any() for x in tree.values())


def test_prepare_sees_one_shard_and_all_of_what_is_whole():
  """The entries named `whole` are this device's share of a data set, of any length."""
  layout = parallel.make_layout(small.config().layout, 16, jax.devices("cpu")[:2], SHARDS)

  def prepare(sharded, replicated, step_number):
    assert sharded["rows"].shape == (2,) and sharded["table"].shape == (5,)
    table = jax.lax.all_gather(sharded["table"], parallel.AXIS, tiled=True)
    return {"found": table[sharded["rows"]] + replicated["one"] + step_number}

  def step(state, batch, teacher_variables):
    return state, {"found": jax.lax.all_gather(batch["found"], parallel.AXIS, tiled=True)}

  rows = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3])
  start = small.start_state(small_config("group"))
  state = layout.put_state(start.replace(params={}, opt_state={}, ema={}, step=np.int32(4)))
  sharded = layout.put_sharded({"rows": rows, "table": np.arange(10, dtype=np.float32) ** 2})
  compiled = layout.compile(step, prepare, whole=("table",))
  _, found = compiled(state, sharded, layout.put_replicated({"one": np.float32(1)}), None)
  np.testing.assert_array_equal(found["found"], rows**2 + 5)


def test_what_cannot_be_shared_is_refused():
  layout, devices = small.config().layout, jax.devices("cpu")[:4]
  with pytest.raises(UserError, match="6 virtual shards cannot be shared equally by 4 devices"):
    parallel.make_layout(layout, 24, devices, 6)
  with pytest.raises(UserError, match="batch size 12 cannot be cut into 8 equal virtual shards"):
    parallel.make_layout(layout, 12, devices, 8)
  layout.update(kind="mesh", fsdp=True)
  with pytest.raises(UserError, match="virtual shards need every device to have all parameters"):
    parallel.make_layout(layout, 16, devices, 8)
  config = small_config("group")
  config.train.accumulate = 2
  with pytest.raises(UserError, match="accumulate=2 cannot be combined with --config.train.virtual_shards=8"):
    make_step(build(config.model), optimizer(config.optimizer, 10), config)
