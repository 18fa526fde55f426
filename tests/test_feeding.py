"""Raw files, packed records and accelerator memory feed the same pairs."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

import small
from input_pipeline import datasets, pipeline, records, sampling
from input_pipeline.errors import UserError
from input_pipeline.random_bits import threefry2x32
from input_pipeline.sequences import from_labels
from input_pipeline.simulator.dataset import write_dataset
from siamdff_jax.feeding import feeds, sources
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training.state import TrainState

BATCH, STEPS_TAKEN = 16, 3


def configuration(**data):
  config = small.config()
  config.seed, config.train.batch_size = 5, BATCH
  config.data.pairs.negative = 0.3
  for name in config.data.augment:
    config.data.augment[name] = 0.0
  config.data.update(data)
  return config


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
  """Simulated sequences as JPEG files."""
  folder = tmp_path_factory.mktemp("feeding")
  write_dataset(folder / "data", 3, 12, seed=2, width=240, height=200)
  return folder / "data"


@pytest.fixture(scope="module")
def samplers(raw):
  """{"raw", "packed"}: samplers over the same sequences."""
  config, entry = configuration(), dict(format="antiuav410", root=str(raw), weight=1.0)
  records.prepare(datasets.load("antiuav410", raw), str(raw.parent / "packed"))
  config.data.train = dict(raw=entry, packed=dict(format="packed", root=str(raw.parent / "packed"), weight=1.0))

  def one(name):
    return sources.sampler({name: config.data.train[name]}, config, str(raw.parent / "workdir"))

  return {name: one(name) for name in ("raw", "packed")}


def test_random_bits_are_those_of_the_published_generator():
  """JAX's own Threefry-2x32 is the other implementation; and numpy and jax.numpy agree to the bit."""
  from jax.extend.random import threefry_2x32

  rng = np.random.default_rng(0)
  key, counts = rng.integers(0, 2**32, 2, dtype=np.uint32), rng.integers(0, 2**32, 10, dtype=np.uint32)
  expected = np.asarray(threefry_2x32(jnp.asarray(key), jnp.asarray(counts)))
  for xp in (np, jnp):
    keys = [xp.asarray(key[i:i + 1]) for i in range(2)]
    found = threefry2x32(keys, (xp.asarray(counts[:5]), xp.asarray(counts[5:])), xp)
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_plans_on_the_device_are_those_of_the_host(samplers):
  """The same frames to the last one of 5000, the same windows up to rounding."""
  sampler, config = samplers["packed"], configuration()
  tables = sampling.Tables(**{name: jnp.asarray(x) for name, x in vars(sampler.tables).items()})
  found = jax.jit(lambda i: sampling.draw(tables, 5, i, config.data.pairs, 127 / 63, jnp))(
      np.arange(5000, dtype=np.uint32))
  expected = sampler.plan(5, np.arange(5000))
  for name in ("template_frame", "search_frame", "present"):
    np.testing.assert_array_equal(found[name], expected[name])
  for name in ("template_window", "search_window", "template_box", "search_box"):
    np.testing.assert_allclose(found[name], expected[name], atol=1e-3)
  assert 0.25 < 1 - expected["present"].mean() < 0.35


def fed(sampler, config, devices: int) -> dict:
  """The batch after `STEPS_TAKEN` steps as the compiled step sees it, whole."""
  layout = parallel.make_layout(config.layout, BATCH, jax.devices()[:devices],
                                virtual_shards=config.train.virtual_shards)
  feed = feeds.make(config, sampler, layout, STEPS_TAKEN)

  def step(state, batch, teacher_variables):
    del teacher_variables
    if layout.axis_name:
      batch = jax.tree.map(lambda x: jax.lax.all_gather(x, layout.axis_name, tiled=True), batch)
    return state, batch

  state = layout.put_state(TrainState(np.int32(STEPS_TAKEN), {}, {}, {}, {}, np.int32(0)))
  return jax.device_get(layout.compile(step, feed.prepare, feed.whole)(state, next(feed), feed.replicated, {})[1])


def assert_fed(found, sampler, levels):
  """`found` holds the examples of the batch, the pixels within `levels` grey levels at most, and 1.5 on average."""
  for i in range(BATCH):
    expected = pipeline.example(sampler, 63, 127, 5, STEPS_TAKEN * BATCH + i)
    for name in expected:
      if name in ("template", "search"):
        difference = np.abs(found[name][i] - expected[name].astype(np.float32))
        assert difference.max() <= levels and difference.mean() < 1.5, (i, name)
      else:
        np.testing.assert_allclose(found[name][i], expected[name], atol=1e-3)


@pytest.mark.parametrize("source", ["raw", "packed"])
def test_the_host_feeds_the_examples(samplers, source):
  config = configuration()
  assert_fed(fed(samplers[source], config, 2), samplers[source], levels=1)


@pytest.mark.parametrize("kind, devices, shards, virtual", [
    ("pmap", 1, 1, 0), ("mesh", 8, 1, 0), ("pmap", 4, 2, 0), ("mesh", 8, 8, 0), ("pmap", 2, 2, 4)])
def test_device_memory_feeds_the_same(samplers, kind, devices, shards, virtual):
  """Whole copies, and one copy over several devices; equal to the packed data within a level, to raw but for JPEG."""
  config = configuration(feed="device", resident_shards=shards)
  config.layout.kind, config.train.virtual_shards = kind, virtual
  found = fed(samplers["packed"], config, devices)
  assert_fed(found, samplers["packed"], levels=1)
  assert_fed(found, samplers["raw"], levels=20)


def test_feeds_augment_alike(samplers):
  config, device = configuration(), configuration(feed="device")
  for made in (config, device):
    made.data.augment = small.config().data.augment
  host, resident = fed(samplers["packed"], config, 2), fed(samplers["packed"], device, 1)
  for name in ("template", "search"):
    difference = np.abs(host[name] - resident[name])
    assert difference.max() <= 2 and difference.mean() < 0.1  # A rounding of the crops, and the gain on it.
  np.testing.assert_allclose(host["search_box_ltrb"], resident["search_box_ltrb"], atol=1e-3)
  plain = fed(samplers["packed"], configuration(), 2)
  assert np.abs(plain["search"] - host["search"]).mean() > 2


def test_what_cannot_be_fed_is_refused(samplers):
  layout = parallel.make_layout(configuration().layout, BATCH, jax.devices()[:4])
  with pytest.raises(UserError, match="resident_shards is 3, expected a divisor of the 4 devices"):
    feeds.make(configuration(feed="device", resident_shards=3), samplers["packed"], layout, 0)
  with pytest.raises(UserError, match=r"data.feed is 'disk', expected one of \('host', 'device'\)"):
    feeds.make(configuration(feed="disk"), samplers["packed"], layout, 0)
  config = configuration()
  config.train.steps = 2**30
  with pytest.raises(UserError, match="are more than the 4294967296 of one stream"):
    feeds.make(config, samplers["packed"], layout, 0)


def test_packed_data_that_reach_too_little_are_refused(samplers, raw):
  del samplers  # They have made it.
  config = configuration()
  config.model.search_side = 383
  config.data.train = dict(x=dict(format="packed", root=str(raw.parent / "packed"), weight=1.0))
  with pytest.raises(UserError, match=r"packed with --context=3, this config's windows need 7\.\d\d"):
    sources.sampler(config.data.train, config, "workdir")


def test_the_device_feed_needs_no_tensorflow(samplers, raw):
  """Packed data load, and a batch is fed, in a process in which importing TensorFlow fails."""
  code = """
import importlib.machinery, sys

finder, find = importlib.machinery.PathFinder, importlib.machinery.PathFinder.find_spec
finder.find_spec = lambda name, *rest: None if name.split(".")[0] == "tensorflow" else find(name, *rest)
from absl import flags
flags.FLAGS.mark_as_parsed()
import test_feeding
from siamdff_jax.feeding import sources
config = test_feeding.configuration(feed="device")
config.data.train = dict(x=dict(format="packed", root=sys.argv[1], weight=1.0))
sampler = sources.sampler(config.data.train, config, "workdir")
test_feeding.assert_fed(test_feeding.fed(sampler, config, 1), sampler, levels=1)
print("fed")
"""
  del samplers
  environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", code, str(raw.parent / "packed")], env=environment, capture_output=True,
                        text=True)
  assert done.returncode == 0 and done.stdout == "fed\n", done.stderr[-2000:]


def test_a_source_at_fault_is_named(monkeypatch):
  """By its place in the config, so that the flag to be set is right, and by its folder."""
  config, never = configuration(), sequence([False] * 3)
  config.data.train = dict(clips=dict(format="plain", root="DATA/clips", weight=1.0))
  config.data.validation = dict(rest=dict(format="plain", root="", weight=1.0))
  with pytest.raises(UserError, match="'rest' has no root, set --config.data.validation.rest.root=FOLDER"):
    sources.sampler(config.data.validation, config, "workdir")
  monkeypatch.setattr(sources.datasets, "load", lambda *_: [never])
  monkeypatch.setattr(sources.records, "packed", lambda loaded, *_, **__: loaded)
  with pytest.raises(UserError, match=r"data.train.clips \(DATA/clips\) has no sequence with a visible target"):
    sources.sampler(config.data.train, config, "workdir")
  config.data.train = {}
  with pytest.raises(UserError, match="config.data.train names no data, expected"):
    sources.sampler(config.data.train, config, "workdir")


def sequence(visible):
  return from_labels("s", None, np.full((len(visible), 4), 9.0), np.array(visible), "s")
