"""From a config's data sources to a pair sampler."""

import os

import ml_collections

from input_pipeline import datasets, records
from input_pipeline.errors import DataError
from input_pipeline.sampling import PairSampler


def sampler(entries, config: ml_collections.ConfigDict, workdir: str) -> PairSampler:
  """Reads the sources and returns the sampler over them.

  Args:
    entries: `config.data.train` or `.validation`: {name: {"format", "root", "weight"}}.
    config: the whole config.
    workdir: videos are packed once into `config.data.records`, by default the folder `records` beside it.
  """
  folder = config.data.records or os.path.join(os.path.dirname(os.path.abspath(workdir)), "records")
  sources = []
  for name, entry in sorted(entries.items()):
    if not entry.root:
      raise DataError(f"the data source {name!r} has no root, set --config.data.train.{name}.root=FOLDER")
    sources.append(records.with_random_access(datasets.load(entry.format, entry.root), folder))
  return PairSampler(sources, [entry.weight for _, entry in sorted(entries.items())], config.data.pairs,
                     template_side=config.model.template_side, search_side=config.model.search_side)
