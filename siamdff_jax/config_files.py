"""Config files: from configs/NAME.py[:variant] to the config, or to one sentence that says what is wrong with them."""

import importlib.machinery
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

import ml_collections

import configs
from input_pipeline.errors import UserError
from siamdff_jax.names import nearest
from siamdff_jax.rules import literal

_OURS = pathlib.Path(configs.__file__).parent
_MODULE = "config_file"


def load(path: str) -> ml_collections.ConfigDict:
  """The config of a file.

  Args:
    path: FILE.py, or FILE.py:VARIANT, what its `get_config` gets.

  Raises:
    UserError: no such file or variant, or a file at fault; the sentence begins with the path and names the line.
  """
  file, colon, variant = path.partition(":")
  get_config = _get_config(file)
  variants = [variant] if colon else []
  try:
    inspect.signature(get_config).bind(*variants)
  except TypeError as error:
    if colon:
      raise UserError(f"{path}: this config has no variants, expected {file} alone") from error
    raise UserError(f"{path}: this config needs a variant, expected {file}:VARIANT") from error
  try:
    config = get_config(*variants)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  except Exception as error:
    raise _at_fault(path, file, error) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f"{path}: its get_config() returns {'nothing' if config is None else type(config).__name__}, "
                    "expected a ConfigDict")
  return config


def find(name: str) -> str:
  """The path of a config called by a name ("siamdff_r50", "svanstrom:teacher") or by a path, see `load`."""
  file, colon, variant = name.partition(":")
  if not os.path.exists(file):
    ours = _OURS / f"{pathlib.PurePath(file).name.removesuffix('.py')}.py"
    if ours.exists() and os.path.dirname(file) in ("", _OURS.name):
      file = str(ours)
  return f"{file}{colon}{variant}"


def _get_config(file: str) -> Callable[..., Any]:
  """The function `get_config` of a file."""
  if not os.path.isfile(file):
    what = "a folder" if os.path.isdir(file) else "no such config"
    raise UserError(f"{file}: {what}, expected a file of your own or one of {', '.join(_ours().values())}"
                    f"{_nearest(file)}")
  loader = importlib.machinery.SourceFileLoader(_MODULE, file)
  spec = importlib.util.spec_from_loader(_MODULE, loader)
  assert spec is not None  # It is only where a loader finds nothing; this one need not look.
  module = importlib.util.module_from_spec(spec)
  sys.modules[_MODULE] = module
  try:
    loader.exec_module(module)
  except Exception as error:
    raise _at_fault(file, file, error) from error
  if not callable(getattr(module, "get_config", None)):
    raise UserError(f"{file}: has no function get_config, expected one that returns the config")
  return module.get_config


def _at_fault(path: str, file: str, error: Exception) -> UserError:
  """The sentence about a file that Python cannot run: the line of it that does not work, and why."""
  if isinstance(error, SyntaxError) and error.filename and os.path.abspath(error.filename) == os.path.abspath(file):
    return UserError(f"{path}: line {error.lineno}: {error.msg}")
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
           if os.path.abspath(frame.filename) == os.path.abspath(file)]
  where = f" line {lines[-1]}:" if lines else ""
  reason = next(iter(str(literal(str(error))).splitlines()), "")  # A KeyError quotes its message.
  return UserError(f"{path}:{where} {type(error).__name__}: {reason}")


def _nearest(file: str) -> str:
  """The config that is meant: one beside the path, or of ours by its name."""
  path = pathlib.Path(file)
  beside = {one.stem: os.path.join(os.path.dirname(file), one.name) for one in sorted(path.parent.glob("*.py"))}
  for known in (beside, _ours()):
    if found := nearest(path.stem, known) or nearest(f"siamdff_{path.stem}", known, 1.0):
      return f"; did you mean {known[found]!r}?"
  return ""


def _ours() -> dict[str, str]:
  """{name: path} of the project's configs."""
  return {one.stem: f"{_OURS.name}/{one.name}" for one in sorted(_OURS.glob("[a-z]*.py")) if one.stem != "base"}
