"""The kinds of rules that values of a config are checked by, and the check of a group of them.

A table is {name: rule}. A rule is a `Rule` for a value; another table for a group; `Each` for a group of any names; or
a function from the group's values to its table, where one value decides which others there are.
"""

import ast
import keyword
import math
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import ml_collections

from siamdff_jax.names import did_you_mean

_LONGEST = 60  # Characters of a value that are shown.


class Rule(NamedTuple):
  """What one value may be.

  Attributes:
    accepts: whether a value makes sense.
    expected: what does, for "expected ...".
    names: what may be meant by a misspelled text.
  """

  accepts: Callable[[Any], bool]
  expected: str
  names: tuple[str, ...] = ()


class Each(NamedTuple):
  """A group whose names are the user's; `rule` is that of every entry."""

  rule: Any


def _in_range(value: Any, least: float | None, most: float | None, above: float | None, below: float | None) -> bool:
  return (math.isfinite(value) and (least is None or value >= least) and (most is None or value <= most)
          and (above is None or value > above) and (below is None or value < below))


def _range(least: float | None, most: float | None, above: float | None, below: float | None) -> str:
  """The bounds in words, with a space before them."""
  if least is not None and most is not None:
    if most == 2**31 - 1:
      return f" of at least {least:g}"  # That it is no longer a number of this kind needs no word.
    return f" from {least:g} to {most:g}" if most < 2**31 else f" from {least} to {most}"
  bounds = ((least, "of at least"), (most, "of at most"), (above, "above"), (below, "below"))
  return "".join(f"{' and' * (n > 0)} {words} {bound:g}" for n, (bound, words) in enumerate(
      (bound, words) for bound, words in bounds if bound is not None))


def number(least: float | None = None, most: float | None = None, above: float | None = None,
           below: float | None = None) -> Rule:
  """A finite number within bounds."""

  def accepts(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and _in_range(value, least, most, above, below)

  return Rule(accepts, f"a finite number{_range(least, most, above, below)}")


def whole(least: int | None = None, most: int | None = 2**31 - 1) -> Rule:
  """A whole number within bounds; by default what has room in 32 bits."""

  def accepts(value: Any) -> bool:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_whole and _in_range(value, least, most, None, None)

  return Rule(accepts, f"a whole number{_range(least, most, None, None)}")


def switch() -> Rule:
  """True or False."""
  return Rule(lambda x: isinstance(x, bool), "True or False")


def text() -> Rule:
  """Any text."""
  return Rule(lambda x: isinstance(x, str), "a text")


def one_of(known: Collection[str]) -> Rule:
  """One of some names."""
  return Rule(lambda x: isinstance(x, str) and x in known, f"one of {', '.join(map(repr, known))}", tuple(known))


def optional(rule: Rule) -> Rule:
  """None, or what the rule says."""
  return Rule(lambda x: x is None or rule.accepts(x), f"{rule.expected}, or None")


def several(count: int, rule: Rule, of_what: str) -> Rule:
  """`count` values in a row that each keep the rule."""

  def accepts(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == count and all(map(rule.accepts, value))

  return Rule(accepts, f"{count} {of_what}")


def is_group(value: Any) -> bool:
  """Whether this is a group of values."""
  return isinstance(value, Mapping | ml_collections.ConfigDict)


def literal(text: str) -> Any:
  """A number, a switch or a list as Python writes it; anything else stays a text."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def place_of(group: str, name: str) -> str:
  """A group's entry as flags have it: "--config.loss.weights['class']", as "class" is a word of Python."""
  plain = str(name).isidentifier() and not keyword.iskeyword(name)
  return f"{group}.{name}" if plain else f"{group}[{name!r}]"


def problem(place: str, value: Any, expected: str) -> str:
  """The sentence about a value that makes no sense."""
  shown = str(value)
  return f"{place}={shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '...'}: expected {expected}"


def problems(values: Any, rule: Any, place: str, partial: bool = False) -> list[str]:
  """What is wrong, a sentence each: names that are unknown or missing, values that break their rule.

  Args:
    values: a value or a group, as the rule says.
    rule: see the module.
    place: of `values`, for example "--config.train".
    partial: whether groups may lack names of their table.
  """
  if isinstance(rule, Rule):
    near = did_you_mean(values, rule.names) if isinstance(values, str) else ""
    return [] if rule.accepts(values) else [problem(place, values, rule.expected) + near]
  if not is_group(values):
    return [problem(place, values, "a group of values, not one")]
  if isinstance(rule, Each):
    return [found for name in values for found in problems(values[name], rule.rule, place_of(place, name), partial)]
  table = rule(values) if callable(rule) else rule
  found = [] if partial else [f"{place_of(place, name)}: is missing, expected as in configs/base.py"
                              for name in table if name not in values]
  for name in values:
    if name in table:
      found += problems(values[name], table[name], place_of(place, name), partial)
    else:
      found.append(f"{place_of(place, name)}: no such setting{did_you_mean(str(name), table)}")
  return found
