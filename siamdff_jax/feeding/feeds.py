"""The two ways to feed the compiled step, behind one interface."""

import functools
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np

from input_pipeline import pipeline, sampling
from input_pipeline.errors import UserError
from input_pipeline.sampling import PairSampler
from siamdff_jax.feeding import resident
from siamdff_jax.feeding.augment import augment
from siamdff_jax.parallel.layouts import Layout

log = logging.getLogger(__name__)

KINDS = ("host", "device")
Batch = dict[str, Any]  # Arrays by name.


class Feed(Protocol):
  """What the loop compiles the step with, and asks for data once per step.

  Attributes:
    whole: for `Layout.compile`: which entries of the data are not one row per example.
    replicated: what every device has whole, placed.
  """

  whole: tuple[str, ...]
  replicated: Any

  def prepare(self, sharded: Batch, replicated: Any, step: jax.Array) -> Batch:
    """For `Layout.compile`: makes a device's part of the batch inside the compiled step.

    Args:
      sharded: this device's part of what `next` gave.
      replicated: the attribute of this name.
      step: int32 [], steps taken before this one.
    """

  def __next__(self) -> Batch:
    """The placed data of the next step."""


def make(config: ml_collections.ConfigDict, sampler: PairSampler, layout: Layout, start_step: int) -> Feed:
  """The feed named by `config.data.feed`, from step `start_step` on.

  Raises:
    UserError: an unknown feed, more examples than a stream has, or data that cannot be shared as asked.
  """
  if config.train.steps * config.train.batch_size > sampling.MAX_EXAMPLES:
    raise UserError(f"{config.train.steps} steps of {config.train.batch_size} pairs are more than the "
                    f"{sampling.MAX_EXAMPLES} of one stream; start a second run with another --config.seed")
  if config.data.feed == "host":
    return HostFeed(config, layout, batches(sampler, config, start_step))
  if config.data.feed == "device":
    return ResidentFeed(config, sampler, layout)
  raise UserError(f"data.feed is {config.data.feed!r}, expected one of {KINDS}")


def batches(sampler: PairSampler, config: ml_collections.ConfigDict, start_step: int
            ) -> Iterator[dict[str, np.ndarray]]:
  """This process's share of the batches, by tf.data."""
  return pipeline.batches(
      sampler, config.data, template_side=config.model.template_side, search_side=config.model.search_side,
      seed=config.seed, batch_size=config.train.batch_size, start_step=start_step, host=jax.process_index(),
      num_hosts=jax.process_count())


class HostFeed:
  """The host reads, decodes and crops; the step augments."""

  def __init__(self, config: ml_collections.ConfigDict, layout: Layout, stream: Iterator[dict[str, np.ndarray]]):
    self.whole: tuple[str, ...] = ()
    self.replicated: Any = {}
    self._config, self._stream, self._put = config, stream, layout.put_sharded

  def prepare(self, sharded: Batch, replicated: Any, step: jax.Array) -> Batch:
    return augment(sharded, self._config.seed, self._config.data.augment)

  def __next__(self) -> Batch:
    return self._put(next(self._stream))


class ResidentFeed:
  """The data set lies in accelerator memory; the step draws, gathers, crops and augments."""

  def __init__(self, config: ml_collections.ConfigDict, sampler: PairSampler, layout: Layout):
    devices, shards = layout.num_devices, config.data.resident_shards
    if devices % shards:
      raise UserError(f"data.resident_shards is {shards}, expected a divisor of the {devices} devices")
    where = resident.places(sampler, shards)
    log.info("%d frames in device memory: %.2f GiB per device, one copy per %d of the %d devices",
             len(sampler.tables.boxes), where.size * resident.UNIT / 2**30, shards, devices)

    # Where all devices have the same shard it is decoded once; more than one is never kept on the host.
    loaded = functools.lru_cache(1)(functools.partial(resident.table, sampler, where))
    share = config.train.batch_size // jax.process_count()
    slots = jax.process_index() * share + np.arange(share, dtype=np.uint32)
    self._config, self._devices, self._shards = config, devices, shards
    self.whole: tuple[str, ...] = ("pixels",)
    self.replicated: Any = layout.put_replicated({"tables": vars(sampler.tables), "places": where})
    self._sharded = layout.put_sharded({"slot": slots}) | {
        "pixels": layout.put_parts(lambda device: loaded(device % shards))}

  def prepare(self, sharded: Batch, replicated: Any, step: jax.Array) -> Batch:
    batch = resident.batch_of(sharded, replicated, step, self._config, self._shards, self._devices)
    return augment(batch, self._config.seed, self._config.data.augment)

  def __next__(self) -> Batch:
    return self._sharded
