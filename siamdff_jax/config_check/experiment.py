"""What the values of an experiment's config may be, section by section as in configs/base.py, and what must go
together."""

import dataclasses
from typing import Any

import ml_collections

from input_pipeline import datasets, sampling
from input_pipeline.errors import UserError
from siamdff_jax import distillation, losses
from siamdff_jax.config_check import network
from siamdff_jax.evaluation.protocols import PROTOCOLS
from siamdff_jax.feeding.feeds import KINDS as FEEDS
from siamdff_jax.feeding.sources import PACKED
from siamdff_jax.names import did_you_mean
from siamdff_jax.rules import (
  Each,
  number,
  one_of,
  optional,
  place_of,
  problem,
  problems,
  switch,
  text,
  whole,
)
from siamdff_jax.tracking import configured

LARGEST_SEED = 2**32 - 1  # JAX's keys drop the bits above.
_SOURCE = {"format": one_of((PACKED, *datasets.FORMATS)), "root": text(), "weight": number(0, 1e9)}
_EFFECTS = ("flip", "polarity", "crossover", "lens", "tone", "halo", "fade", "gain", "blur", "noise", "stripes",
            "grain", "dead_pixels", "equalize", "compression")

SECTIONS: dict[str, Any] = {
    "seed": whole(0, LARGEST_SEED),
    "model": network.TABLE,
    "teacher": {"checkpoint": text()},
    "distiller": {
        "kind": one_of(("none", *distillation.DISTILLERS)),
        "weight": number(0),
        "weights": Each(number(0)),
        "temperature": optional(number(above=0)),
        "target_temperature": optional(number(above=0)),
    },
    "loss": {
        **{name: one_of(kinds) for name, kinds in losses.KINDS.items()},
        "nwd_constant": number(above=0),
        "weights": dict.fromkeys(("class", "box", "quality", "presence"), number(0)),
    },
    "data": {
        "train": Each(_SOURCE),
        "validation": Each(_SOURCE),
        "feed": one_of(FEEDS),
        "resident_shards": whole(1),
        "records": text(),
        "workers": whole(1, 4096),
        "pairs": {
            "max_gap": whole(0, 1_000_000),
            "negative": number(0, 1), "lookalike": number(0, 1), "impostor": number(0, 1),
            "shift": number(0, 100), "scale": number(0, 100), "template_scale": number(0, 10),
            "jitter": number(least=0, below=1),  # From 1 on the box may be off the target.
            "style": number(0, 10),
        },
        "augment": dict.fromkeys(_EFFECTS, number(0, 1)),
    },
    "evaluation": {
        "format": one_of(datasets.FORMATS), "root": text(), "only": text(),
        "protocol": one_of(("", *PROTOCOLS)),
        "metric": text(),
        "streams": whole(1, 100_000),
    },
    "optimizer": {
        "kind": one_of(("adamw", "sgd")),
        "learning_rate": number(above=0, most=1000),
        "weight_decay": number(0),
        "warmup_steps": whole(0),
        "final_fraction": number(0, 1),
        "clip_norm": number(above=0),
        "backbone_factor": number(0),
        "backbone_freeze_steps": whole(0),
    },
    "train": {
        "virtual_shards": whole(0),
        "steps": whole(1),
        "batch_size": whole(1),
        "accumulate": whole(1),
        "ema_decay": number(least=0, below=1),
        "max_bad_steps": whole(1),
        "log_every": whole(1),
        "checkpoint_every": whole(1),
        "validation_pairs": whole(1, 10_000_000),
        "profile_steps": whole(0),
        "init_checkpoint": text(), "init_backbone": text(),
    },
    "layout": {"kind": one_of(("pmap", "mesh")), "fsdp": switch()},
}


def check(config: ml_collections.ConfigDict, place: str = "--config") -> None:
  """Checks an experiment's config, for the commands that train or measure what it describes.

  What the machine, the data or a teacher decide (shares of devices, folders, equal crop sides) is checked where these
  are known.

  Args:
    config: the whole config, with all that configs/base.py has.
    place: what the command's flags call it.

  Raises:
    UserError: names that are unknown or missing, and values that make no sense; all of them in one sentence.
  """
  if "experiment" in config:
    raise UserError("this config is a sweep's or an ablation's, expected an experiment's like configs/quickstart.py")
  if found := single(config, place) or together(config, place):
    raise UserError("; ".join(found))


def single(config: ml_collections.ConfigDict, place: str = "--config", partial: bool = False) -> list[str]:
  """What is wrong with names and values each by itself, a sentence each; `partial`: some may be missing."""
  found = problems({name: config[name] for name in config if name != "tracker"}, SECTIONS, place, partial)
  if "tracker" in config:
    return found + configured.config_problems(config["tracker"], None, f"{place}.tracker")
  return found if partial else [*found, f"{place}.tracker: is missing, expected as in configs/base.py"]


def together(config: ml_collections.ConfigDict, place: str = "--config") -> list[str]:
  """What is wrong with values that are right by themselves, a sentence each."""
  return (network.together(config.model, f"{place}.model") + _distiller(config.distiller, f"{place}.distiller")
          + _weights(config, place) + _shares(config, place)
          + configured.config_problems(config.tracker, config.model.search_side, f"{place}.tracker"))


def _distiller(distiller: ml_collections.ConfigDict, place: str) -> list[str]:
  """A kind has its own terms and options."""
  if distiller.kind == "none":
    return []
  kind = distiller.kind
  terms = distillation.TERMS[kind]
  options = {field.name for field in dataclasses.fields(distillation.DISTILLERS[kind])}
  found = [f"{place_of(f'{place}.weights', name)}: {kind!r} has no such term, expected one of {', '.join(terms)}"
           f"{did_you_mean(name, terms)}" for name in distiller.weights if name not in terms]
  return found + [problem(f"{place}.{name}", distiller[name], f"None: {kind!r} has no such option")
                  for name in distillation.OPTIONS if distiller[name] is not None and name not in options]


def _weights(config: ml_collections.ConfigDict, place: str) -> list[str]:
  """Weights are shares of something."""
  found = []
  for split in ("train", "validation"):
    entries = config.data[split]
    if len(entries) and not sum(entries[name].weight for name in entries):
      found.append(f"{place}.data.{split}: all sources have the weight 0, expected one above")
  if not sum(config.loss.weights.values()):
    found.append(f"{place}.loss.weights: all are 0, expected one above")
  return found


def _shares(config: ml_collections.ConfigDict, place: str) -> list[str]:
  """Parts of the batch are equal, and a stream has no more examples than it can number."""
  train, layout, found = config.train, config.layout, []
  accumulate, shards = f"{place}.train.accumulate", f"{place}.train.virtual_shards"
  if train.virtual_shards and train.accumulate > 1:
    found.append(f"{accumulate}={train.accumulate}: cannot be combined with {shards}={train.virtual_shards}, "
                 "which takes the batch in parts already; set one of them only")
  for name in ("accumulate", "virtual_shards"):
    if train[name] and train.batch_size % train[name]:
      found.append(problem(f"{place}.train.{name}", train[name], f"a divisor of the batch's {train.batch_size} pairs"))
  if train.steps * train.batch_size > sampling.MAX_EXAMPLES:
    found.append(problem(f"{place}.train.steps", train.steps, f"at most {sampling.MAX_EXAMPLES // train.batch_size} of "
                         f"{train.batch_size} pairs: a stream has {sampling.MAX_EXAMPLES}"))
  if layout.fsdp and layout.kind != "mesh":
    found.append(problem(f"{place}.layout.fsdp", True, f"False: only {place}.layout.kind=mesh shards parameters"))
  return found
