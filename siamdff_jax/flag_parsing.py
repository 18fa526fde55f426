"""A command line read strictly: what is wrong with it becomes one sentence with the nearest right name.

absl's and ml_collections' flags, read and checked by them; this module puts their errors, which are of many kinds and
lengths, into words, and refuses what they take silently: flags that are given twice, a config's key that does not
exist.
"""

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from input_pipeline.errors import UserError
from siamdff_jax import config_files
from siamdff_jax.names import did_you_mean, nearest
from siamdff_jax.rules import is_group, literal, place_of

flags.disclaim_key_flags()

_MISSING = "must have a value other than None"  # absl's words about a required flag.


class _ConfigParser(flags.ArgumentParser):
  """Of a flag for a config file.

  Attributes:
    name: of the flag.
    arguments: those of the command line.
    default: the file where none is given.
  """

  def __init__(self, name: str, default: str | None):
    self.name, self.default = name, default
    self.arguments: list[str] = []

  def parse(self, path: str) -> ml_collections.ConfigDict:
    try:
      config = config_files.load(path)
    except UserError as error:
      raise UserError(f"--{self.name}={error}") from error
    for argument in self.arguments:
      if found := re.match(rf"--?(no)?{self.name}\.([^=]+)", argument):
        _require_key(self.name, found[2], config)
    return config.lock()


class _AnyParser(flags.ArgumentParser):
  """Of a value that is None in the config, which says nothing of its type."""

  def parse(self, argument: str) -> Any:
    return literal(argument)


config_flags.register_flag_parser_for_type(type(None), _AnyParser())


def define_config(name: str, default: str | None, help_string: str, values: flags.FlagValues = flags.FLAGS
                  ) -> flags.FlagHolder:
  """A flag for a config file; its keys are set by --NAME.KEY=VALUE. To be read by `parse`."""
  parser = _ConfigParser(name, default)
  holder = config_flags.DEFINE_config_file(name, None, help_string, values, sys_argv=parser.arguments)
  values[name].parser = parser
  return holder


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
  """Reads the flags.

  Args:
    argv: the command line, the program's name first.
    values: whose flags these are.

  Returns:
    The program's name and the arguments that belong to no flag.

  Raises:
    UserError: anything that is wrong with a flag, in one sentence.
  """
  try:
    arguments = values.read_flags_from_files(list(argv[1:]), force_gnu=False)
  except flags.Error as error:
    raise _sentence(error, values) from error
  by_default = []
  for flag, parser in _config_flags(values):
    if parser.default and not any(re.match(rf"--?{flag.name}(=|$)", x) for x in arguments):
      arguments = [f"--{flag.name}={parser.default}", *arguments]
      by_default.append(flag)
  for _, parser in _config_flags(values):
    parser.arguments[:] = [argv[0], *arguments]
  try:
    rest = values([argv[0], *arguments])
  except (flags.Error, LookupError, TypeError, ValueError) as error:  # All that ml_collections raises of values.
    raise _sentence(error, values) from error
  for flag in by_default:
    flag.present = 0
  _require_once(arguments, values)
  for name in values:
    value = values[name].value
    if isinstance(value, float) and not math.isfinite(value) and "." not in name:  # A config's own: `config_check`.
      raise UserError(f"--{name}={value}: expected a finite number")
    if value == "" and any(_MISSING in validator.message for validator in values[name].validators):
      raise UserError(f"--{name} is empty, expected a value (see --help)")
  return rest


def _config_flags(values: flags.FlagValues) -> list[tuple[flags.Flag, _ConfigParser]]:
  """The flags for config files, and their parsers."""
  pairs = [(values[name], values[name].parser) for name in values]
  return [(flag, parser) for flag, parser in pairs if isinstance(parser, _ConfigParser)]


def _require_key(flag: str, key: str, config: ml_collections.ConfigDict) -> None:
  """Raises a UserError if a config has no such key; a group's are "train.steps", "loss.weights['class']"."""
  try:
    names = config_path.split(key)
  except ValueError as error:
    raise UserError(f"--{flag}.{key}: not the name of a value, expected one like --{flag}.train.steps") from error
  place, node = flag, config
  for name in names:
    if isinstance(node, list | tuple) and isinstance(name, int) and -len(node) <= name < len(node):
      place, node = f"{place}[{name}]", node[name]
    elif is_group(node) and name in node:
      place, node = place_of(place, name), node[name]
    elif is_group(node):
      raise UserError(f"--{flag}.{key}: {place} has no {name}{_nearest_key(place, str(name), node, (flag, config))}")
    else:
      raise UserError(f"--{flag}.{key}: {place} is a value, no group, expected --{place}=VALUE")


def _nearest_key(place: str, name: str, group: Mapping[str, Any], whole: tuple[str, ml_collections.ConfigDict]) -> str:
  """The key that is meant: one of the same group, or one of the `whole` (flag, config) that is called like it."""
  if near := nearest(name, group):
    return f"; did you mean '--{place_of(place, near)}'?"
  everywhere: dict[str, str] = {}
  _collect(whole[1], whole[0], everywhere)
  if near := nearest(name, everywhere, 0.8):
    return f"; did you mean '--{everywhere[near]}'?"
  if not len(group):
    return f" and is empty, expected all of it at once: --{place}=\"{{'{name}': VALUE}}\""
  return f", expected one of {', '.join(map(str, group))}"


def _collect(group: Mapping[str, Any], place: str, found: dict[str, str]) -> None:
  """Enters {name: place} of all keys into `found`, the first one of a name."""
  for name in group:
    found.setdefault(str(name), place_of(place, name))
    if is_group(group[name]):
      _collect(group[name], place_of(place, name), found)


def _require_once(arguments: Sequence[str], values: flags.FlagValues) -> None:
  """Raises a UserError for a flag that is there twice and whose values do not add up: absl takes the last silently."""
  given, rest = collections.defaultdict(list), iter(arguments)
  for argument in rest:
    if argument == "--":
      break
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-") or not name:
      continue
    flag = values[name] if name in values else values[name[2:]] if name[:2] == "no" and name[2:] in values else None
    if flag is None:
      continue
    if not equals:
      value = name if flag.boolean else next(rest, "")
    if not isinstance(flag, flags.MultiFlag) or "." in flag.name:  # Those with a point are a config's tuples.
      given[flag.name].append(value)
  for name, found in given.items():
    if len(found) > 1:
      several = ", its values separated by commas" if isinstance(values[name].parser, flags.ListParser) else ""
      raise UserError(f"--{name} is given {len(found)} times ({', '.join(found)}), expected once{several}")


def _sentence(error: Exception, values: flags.FlagValues) -> UserError:
  """What absl or ml_collections have to say."""
  if isinstance(error, flags.UnrecognizedFlagError):
    return UserError(_unknown(error.flagname, values))
  text = str(error)
  if required := re.findall(rf"Flag --(\S+) {_MISSING}", text):
    names = " and ".join(f"--{name}" for name in required)
    return UserError(f"{names} {'is' if len(required) == 1 else 'are'} required (see --help)")
  if found := re.match(r"Found (\S+) in argv before", text):
    return UserError(f"{found[1]}: comes before its config, expected behind it")
  if found := re.match(r"Flag (\S+) is provided after (\S+)", text):
    return UserError(f"{found[1]}: replaces what {found[2]} before it has set, expected it first")
  if (found := re.match(r"flag --([^=]+)=(.*?): (.*)", text, re.DOTALL)) and found[1] in values:
    return UserError(f"--{found[1]}={found[2]}: {_expected(values[found[1]], found[2], values) or found[3]}")
  if found := re.match(r"Missing value for flag (\S+)", text):
    return UserError(f"{found[1]}: has no value, expected {found[1]}=VALUE")
  return UserError(" ".join(text.removeprefix("ERROR:: ").split()))


def _unknown(name: str, values: flags.FlagValues) -> str:
  """The sentence about a flag that there is not."""
  if name[:2] == "no" and name[2:] in values:
    return f"--{name}: {name[2:]} is no switch, expected --{name[2:]}=VALUE"
  for flag, _ in _config_flags(values):
    if re.match(rf"(no)?{flag.name}\.", name):
      return f"--{name}: there is no config that it could set a value of, give --{flag.name}=FILE"
  return f"there is no flag --{name}{did_you_mean(name, values, '--') or ', see --help'}"


def _expected(flag: flags.Flag, value: str, values: flags.FlagValues) -> str:
  """What a flag takes, as "expected ..."; "" where its parser says it best."""
  parser = flag.parser
  if isinstance(parser, flags.EnumParser):
    return f"expected one of {', '.join(parser.enum_values)}{did_you_mean(value, parser.enum_values)}"
  if isinstance(parser, flags.BooleanParser):
    return "expected true or false"
  if isinstance(parser, flags.IntegerParser | flags.FloatParser):
    kind = "a whole number" if isinstance(parser, flags.IntegerParser) else "a number"
    bounds = (("at least", parser.lower_bound), ("at most", parser.upper_bound))
    return f"expected {kind}{' and'.join(f' of {words} {bound}' for words, bound in bounds if bound is not None)}"
  group, _, key = flag.name.partition(".")
  if key and is_group(current := config_path.get_value(key, values[group].value)):
    example = next(iter(current), "NAME")
    return (f"a group of values, expected one of its own (--{flag.name}.{example}=VALUE) or a dictionary "
            f"(\"{{'{example}': VALUE}}\")")
  return ""
