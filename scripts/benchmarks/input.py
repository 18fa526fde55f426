"""The host's input on one core: pairs/s from image files and from packed records, and where the time goes.

The process pins itself to one core before TensorFlow or JAX start threads. Each stage is a tf.data pipeline that ends
after it, so a stage's cost is the difference to the one before. "decoding alone" has the same files in memory and does
nothing else to them: what no pipeline over the same storage can exceed. Augmentation is part of the training step;
it is measured here, compiled for the same core, to be counted where that core also trains.
"""

import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ml_collections

from benchmarks import isolated, timing

if TYPE_CHECKING:  # The process pins itself before it imports TensorFlow.
  import tensorflow as tf

  from input_pipeline.sampling import PairSampler

PAIRS = 256  # Per timing.
_STAGES = ("plan", "read", "decode", "crop")


def rows(config: ml_collections.ConfigDict, repeats: int, sequences: int = 12, frames: int = 40) -> Iterator[dict]:
  """Simulates 640x512 sequences, packs them, and measures both in a process of its own."""
  from input_pipeline import datasets, records
  from input_pipeline.simulator.dataset import write_dataset

  with tempfile.TemporaryDirectory() as folder:
    raw, packed = os.path.join(folder, "raw"), os.path.join(folder, "packed")
    write_dataset(raw, sequences, frames, seed=0, width=640, height=512)
    records.prepare(datasets.load("antiuav410", raw), packed)
    yield from isolated.run("input", {"raw": raw, "packed": packed, "repeats": repeats,
                                      "config": config.to_json_best_effort()})


def measure(raw: str, packed: str, repeats: int, config: ml_collections.ConfigDict) -> list[dict]:
  """The rows: medians per stage in milliseconds per pair, pairs/s of the whole, the bound, seconds to resume."""
  from input_pipeline import datasets, records
  from input_pipeline.sampling import PairSampler

  sides = {"template_side": config.model.template_side, "search_side": config.model.search_side}
  loaded = {"JPEG files 640x512": datasets.load("antiuav410", raw), "packed records": records.load(packed)}
  samplers = {name: PairSampler([found], [1.0], config.data.pairs, **sides) for name, found in loaded.items()}
  calls: dict[Any, Callable[[], Any]] = {"augment": _augmentation(config)}
  for name, sampler in samplers.items():
    calls |= {(name, stage): call for stage, call in _stages(sampler, tuple(sides.values())).items()}
    calls[name, "batches"] = _batches(sampler, sides, config)
  times = timing.interleaved(calls, repeats, warmup=1)
  per_pair = {key: 1e3 * timing.median(found) / PAIRS for key, found in times.items()}
  out = []
  for name, sampler in samplers.items():
    ends = [per_pair[name, stage] for stage in _STAGES]
    cost = {f"{stage} (ms)": end - start for stage, start, end in zip(_STAGES, [0, *ends[:-1]], ends, strict=True)}
    out.append({"source": name, "pairs/s": 1e3 / per_pair[name, "batches"], **cost,
                "decoding alone (pairs/s)": 1e3 / per_pair[name, "decoding alone"],
                "augment in the step (ms)": per_pair["augment"],
                "pairs/s with it": 1e3 / (per_pair[name, "batches"] + per_pair["augment"]),
                "resume at step 10^6 (s)": _resume(sampler, sides, config),
                "seconds": {" ".join(key): found for key, found in times.items() if key[0] == name}})
  return out


def _stages(sampler: "PairSampler", sides: tuple[int, int]) -> dict[str, Callable[[], Any]]:
  """Pipelines of `PAIRS` pairs that end after each stage, on one thread."""
  import numpy as np
  import tensorflow as tf

  from input_pipeline import decoding

  plan = sampler.plan(0, np.arange(PAIRS))
  names = ("template", "search")
  keys = [f"{name}_{what}" for name in names for what in ("frame", "window")]
  planned = tf.data.Dataset.from_tensor_slices({key: plan[key] for key in keys})
  fetch = decoding.fetcher(sampler)

  def read(pairs: dict[str, Any]) -> dict[str, Any]:
    fetched = fetch([pairs[f"{name}_frame"] for name in names])
    return pairs | {names[i]: fetched[i] for i in range(len(names))}

  def region(pairs: dict[str, Any]) -> dict[str, Any]:
    return {name: decoding.region(pairs[name], pairs[f"{name}_window"]) for name in names}

  # Something of the result, so that nothing is left out.
  def length(pairs: dict[str, Any]) -> list[tf.Tensor]:
    return [tf.strings.length(pairs[name]["data"]) for name in names]

  def peak(found: dict[str, Any]) -> list[tf.Tensor]:
    return [tf.reduce_max(found[name][0]) for name in names]

  def crop(pairs: dict[str, Any]) -> list[tf.Tensor]:
    return [decoding.resample(*region(pairs)[name], pairs[name], pairs[f"{name}_window"], side)
            for name, side in zip(names, sides, strict=True)]

  stored = list(planned.map(read).as_numpy_iterator())
  in_memory = tf.data.Dataset.from_generator(
      lambda: stored, output_signature=planned.map(read).element_spec).cache()
  ends = {"read": planned.map(lambda p: length(read(p))), "decode": planned.map(lambda p: peak(region(read(p)))),
          "crop": planned.map(lambda p: crop(read(p))), "decoding alone": in_memory.map(lambda p: peak(region(p)))}
  runs = {name: functools.partial(_exhaust, _on_one_thread(dataset)) for name, dataset in ends.items()}
  return {"plan": lambda: sampler.plan(0, np.arange(PAIRS))} | runs


def _on_one_thread(dataset: "tf.data.Dataset") -> "tf.data.Dataset":
  import tensorflow as tf

  options = tf.data.Options()
  options.autotune.enabled = False
  options.threading.private_threadpool_size = 1
  return dataset.batch(32).with_options(options)


def _exhaust(dataset: "tf.data.Dataset") -> None:
  for _ in dataset.as_numpy_iterator():
    pass


def _batches(sampler: "PairSampler", sides: Mapping[str, int], config: ml_collections.ConfigDict
             ) -> Callable[[], Any]:
  """`PAIRS` pairs of the training's own pipeline, which goes on from call to call."""
  from input_pipeline import pipeline

  one_worker = config.data.copy_and_resolve_references()
  one_worker.workers = 1
  stream = pipeline.batches(sampler, one_worker, seed=0, batch_size=32, **sides)
  return lambda: list(itertools.islice(stream, PAIRS // 32)) and None


def _augmentation(config: ml_collections.ConfigDict) -> Callable[[], Any]:
  import jax

  from benchmarks.cases import random_batch
  from siamdff_jax.feeding.augment import augment

  sized = config.copy_and_resolve_references()
  sized.train.batch_size = 32
  batch = jax.device_put(random_batch(sized) | {"index": jax.numpy.arange(32, dtype="uint32")})
  call = jax.jit(lambda b: augment(b, 0, config.data.augment))
  return lambda: [jax.block_until_ready(call(batch)) for _ in range(PAIRS // 32)] and None


def _resume(sampler: "PairSampler", sides: Mapping[str, int], config: ml_collections.ConfigDict) -> float:
  """Seconds until the first batch of a stream that starts at step 10^6."""
  from input_pipeline import pipeline

  start = time.perf_counter()
  next(pipeline.batches(sampler, config.data, seed=0, batch_size=128, start_step=10**6, **sides))
  return time.perf_counter() - start


def _main(arguments: dict[str, Any]) -> None:
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  arguments["config"] = ml_collections.ConfigDict(json.loads(arguments["config"]))
  print(json.dumps(measure(**arguments)))


if __name__ == "__main__":
  from absl import flags

  flags.FLAGS.mark_as_parsed()  # TFDS reads flags.
  _main(json.loads(sys.argv[1]))
