"""What is measured: a config with or without a teacher's config, and batches of random pairs for it."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import ml_collections
import numpy as np

from input_pipeline.errors import UserError
from siamdff_jax import config_files

PAIRS = {  # The trainings that docs/performance.md shows: student, teacher or "" (files in configs/).
    "r50": ("siamdff_r50", "siamdff_r50"),
    "r18": ("siamdff_r18", "siamdff_r50"),
    "lite": ("siamdff_lite", "siamdff_r50"),
    "shipped_r18": ("shipped:r18", ""),
    "shipped_lite": ("shipped:lite", "shipped:r18"),
}


@dataclasses.dataclass(frozen=True)
class Case:
  """A training step to measure.

  Attributes:
    name: for the table, "student <- teacher".
    config: the whole config of what is trained.
    teacher_config: the whole config of the teacher (random weights), or None without distillation.
  """

  name: str
  config: ml_collections.ConfigDict
  teacher_config: ml_collections.ConfigDict | None = None

  def with_batch(self, batch: int, **layout: Any) -> "Case":
    """The same with another global batch size, and other entries of `config.layout`."""
    config = self.config.copy_and_resolve_references()
    config.train.batch_size = batch
    config.layout.update(layout)
    return dataclasses.replace(self, config=config)


def case(name: str, config: ml_collections.ConfigDict, teacher_name: str = "",
         teacher_config: ml_collections.ConfigDict | None = None) -> Case:
  """A case whose distiller is switched on exactly where there is a teacher: ours unless the config names another."""
  config = config.copy_and_resolve_references()
  if teacher_config is None:
    config.distiller.kind = "none"
  elif config.distiller.kind == "none":
    config.distiller.kind = "contextual"
  return Case(f"{name} <- {teacher_name}" if teacher_config is not None else name, config, teacher_config)


def load(path: str) -> tuple[str, ml_collections.ConfigDict]:
  """("siamdff_r50", its config) from "configs/siamdff_r50.py" or "siamdff_r50"; a variant, "shipped:lite", stays."""
  file, colon, variant = path.partition(":")
  name = file.rpartition("/")[2].removesuffix(".py") + colon + variant
  return name, config_files.load(config_files.find(path))


def overridden(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """The config with {"model.dtype": "float32", ...}; raises UserError for a key that it does not have."""
  config = config.copy_and_resolve_references()
  for key, value in overrides.items():
    *parents, last = key.split(".")
    node = config
    for name in parents:
      node = node.get(name) if isinstance(node, ml_collections.ConfigDict) else None
    if not isinstance(node, ml_collections.ConfigDict) or last not in node:
      raise UserError(f"--config.{key}: not every config of this command (students and teachers) has it")
    node[last] = value
  return config


def distillations(names: Iterable[str], overrides: Mapping[str, Any]) -> list[Case]:
  """The cases of `PAIRS` by name, with `overrides` of student and teacher alike."""
  found = []
  for name in names:
    if name not in PAIRS:
      raise UserError(f"--cases: {name!r} is not one of {', '.join(PAIRS)}")
    networks = [(of, overridden(config, overrides)) for of, config in map(load, filter(None, PAIRS[name]))]
    found.append(case(*itertools.chain(*networks)))
  return found


def random_batch(config: ml_collections.ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
  """A global batch of noise in the form of `input_pipeline.pipeline.example`; an eighth of it without a target."""
  rng = np.random.default_rng(seed)
  size, model = config.train.batch_size, config.model

  def image(side: int) -> np.ndarray:
    return rng.integers(0, 256, (size, side, side, 1), np.uint8)

  wh = rng.uniform(0.2, 0.4, (size, 2)) * model.template_side
  centre = rng.uniform(0.4, 0.6, (size, 2)) * model.search_side
  present = (np.arange(size) % 8 != 7).astype(np.float32)
  box = np.concatenate([centre - wh / 2, centre + wh / 2], -1) * present[:, None]
  return {"template": image(model.template_side), "search": image(model.search_side),
          "template_wh": wh.astype(np.float32), "search_box_ltrb": box.astype(np.float32), "present": present}
