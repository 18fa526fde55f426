"""From a config's data sources to a pair sampler."""

import os

import ml_collections

from input_pipeline import datasets, records
from input_pipeline.errors import UserError
from input_pipeline.sampling import PairSampler, needed_context
from siamdff_jax.parallel import distributed

PACKED = "packed"  # The `format` of what scripts/prepare_data.py wrote.


def sampler(entries: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: str) -> PairSampler:
  """Reads the sources and returns the sampler over them.

  Args:
    entries: `config.data.train` or `.validation` itself: {name: {"format", "root", "weight"}}; "packed" or one of
      `datasets.FORMATS`.
    config: the whole config.
    workdir: videos, and with `config.data.feed="device"` all data, are packed once into `config.data.records`, by
      default the folder `records` beside it.

  Raises:
    UserError: data at fault, or packed data that reach less far around the target than the pairs need.
  """
  split = "validation" if entries is config.data.validation else "train"
  if not len(entries):
    raise UserError(f"config.data.{split} names no data, expected NAME=dict(format, root, weight)")
  beside = "." if "://" in workdir else os.path.dirname(os.path.abspath(workdir))  # Not into a bucket.
  folder = config.data.records or os.path.join(beside, "records")
  sides = {"template_side": config.model.template_side, "search_side": config.model.search_side}
  needed = needed_context(config.data.pairs, sides["search_side"] / sides["template_side"])
  context = max(needed, records.CONTEXT)
  sources = []
  for name, entry in sorted(entries.items()):
    if not entry.root:
      raise UserError(f"the data source {name!r} has no root, set --config.data.{split}.{name}.root=FOLDER")
    if entry.format == PACKED:
      found = records.packed_context(entry.root)
      if found < needed:
        raise UserError(f"{entry.root}: was packed with --context={found:g}, this config's windows need {needed:.2f}; "
                        "pack it again with more, or lower data.pairs.shift, .scale or model.search_side")
      sources.append(records.load(entry.root))
    else:
      loaded = datasets.load(entry.format, entry.root)
      with distributed.lead_first():  # What is packed on first use is packed once.
        sources.append(records.packed(loaded, folder, context, all_of_them=config.data.feed == "device"))
  names = [f"data.{split}.{name} ({entry.root})" for name, entry in sorted(entries.items())]
  weights = [entry.weight for _, entry in sorted(entries.items())]
  return PairSampler(sources, weights, config.data.pairs, names=names, **sides)
