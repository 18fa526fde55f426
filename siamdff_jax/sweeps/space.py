"""The search space: which values of an experiment's config vary, and over what."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from input_pipeline.errors import UserError

_FIELDS = {"log_uniform": {"low", "high"}, "uniform": {"low", "high"}, "integer": {"low", "high"}, "choice": {"values"}}


@dataclasses.dataclass(frozen=True)
class Parameter:
  """One value that varies.

  Attributes:
    path: its place in the experiment's config, e.g. "optimizer.learning_rate".
    kind: "log_uniform" or "uniform" (floats in low..high), "integer" (low..high, both included) or "choice".
    low, high: the bounds; None for a choice.
    values: of a choice.
  """

  path: str
  kind: str
  low: float | None = None
  high: float | None = None
  values: tuple = ()

  @property
  def bounds(self) -> tuple[float, float]:
    """(low, high) of a parameter that is no choice."""
    assert self.low is not None and self.high is not None
    return self.low, self.high


def parse(entries: Sequence[Mapping[str, Any]], experiment: ml_collections.ConfigDict) -> list[Parameter]:
  """Checks a config's list of {"parameter", "kind", "low", "high" | "values"} against the experiment it varies.

  Raises:
    UserError: an unknown parameter, kind or field, bounds in the wrong order, or values of another type than the
      config's; the sentence names the parameter.
  """
  if not entries:
    raise UserError("the sweep's config has an empty `space`, expected at least one parameter to vary")
  space = [_parameter(dict(entry), experiment) for entry in entries]
  paths = [p.path for p in space]
  for path in paths:
    if paths.count(path) > 1:
      raise UserError(f"search space: {path} is there twice")
  return space


def _parameter(entry: dict[str, Any], experiment: ml_collections.ConfigDict) -> Parameter:
  path, kind = entry.pop("parameter", None), entry.pop("kind", None)
  if not isinstance(path, str):
    raise UserError("search space: an entry has no `parameter`, expected a path like 'optimizer.learning_rate'")

  def fault(what: str) -> UserError:
    return UserError(f"search space: {path}: {what}")

  current = _current(experiment, path)
  if kind not in _FIELDS:
    raise fault(f"kind is {kind!r}, expected one of {', '.join(_FIELDS)}")
  if set(entry) != _FIELDS[kind]:
    raise fault(f"{kind} takes exactly {' and '.join(sorted(_FIELDS[kind]))}, got {', '.join(sorted(entry)) or 'none'}")
  if kind == "choice":
    values = tuple(_as_config(v) for v in entry["values"])
    if not values:
      raise fault("`values` is empty")
    for value in values:
      if not _fits(value, current):
        raise fault(f"{value!r} does not fit the config, where it is {current!r} ({type(current).__name__})")
    return Parameter(path, kind, values=values)
  wanted: type[int] | type[float] = int if kind == "integer" else float
  if current is not None and type(current) is not wanted:
    raise fault(f"{kind} gives a {wanted.__name__}, but in the config it is {current!r} ({type(current).__name__})")
  for name in ("low", "high"):
    if type(entry[name]) not in (int, wanted) or not math.isfinite(entry[name]):
      raise fault(f"`{name}` is {entry[name]!r}, expected a finite {wanted.__name__}")
  low, high = wanted(entry["low"]), wanted(entry["high"])
  if not low < high:
    raise fault(f"low {low:g} is not below high {high:g}")
  if kind == "log_uniform" and low <= 0:
    raise fault(f"low is {low:g}, expected more than 0 for log_uniform")
  return Parameter(path, kind, low, high)


def _current(experiment: ml_collections.ConfigDict, path: str) -> Any:
  """The value at a path of the experiment's config."""
  value = experiment
  for name in path.split("."):
    if not isinstance(value, ml_collections.ConfigDict) or name not in value:
      raise UserError(f"search space: {path} is not in the experiment's config ({name!r} is unknown there)")
    value = value[name]
  if isinstance(value, ml_collections.ConfigDict):
    raise UserError(f"search space: {path} is a group, expected one of its values: {', '.join(sorted(value))}")
  return value


def _as_config(value: Any) -> Any:
  """Lists as tuples, which is what configs hold."""
  return tuple(_as_config(v) for v in value) if isinstance(value, (list, tuple)) else value


def _fits(value: Any, current: Any) -> bool:
  """Whether a value may stand where the config has `current`."""
  if current is None or value is None:
    return True
  return type(value) is type(current) or (type(current) is float and type(value) is int)


def apply(experiment: ml_collections.ConfigDict, values: Mapping[str, Any]) -> ml_collections.ConfigDict:
  """A copy of the experiment with `values` ({path: value}) set."""
  config = experiment.copy_and_resolve_references()
  for path, value in values.items():
    *groups, name = path.split(".")
    group = config
    for part in groups:
      group = group[part]
    with group.ignore_type():  # Checked by `parse`; a None in the config may become a number.
      group[name] = float(value) if isinstance(group[name], float) and value is not None else value
  return config


def sample(space: Sequence[Parameter], seed: int, number: int) -> dict[str, Any]:
  """The values of trial `number` by independent draws; a function of (seed, number) alone."""
  rng = np.random.default_rng([seed, number])
  values: dict[str, Any] = {}
  for p in space:
    if p.kind == "choice":
      values[p.path] = p.values[rng.integers(len(p.values))]
    elif p.kind == "integer":
      first, last = map(int, p.bounds)
      values[p.path] = int(rng.integers(first, last + 1))
    elif p.kind == "uniform":
      values[p.path] = float(rng.uniform(*p.bounds))
    else:
      low, high = p.bounds
      values[p.path] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
  return values


def grid(space: Sequence[Parameter]) -> list[dict[str, Any]]:
  """All combinations of a space that consists of choices, the last parameter varying fastest."""
  paths = [p.path for p in space]
  return [dict(zip(paths, values, strict=True)) for values in itertools.product(*(p.values for p in space))]
