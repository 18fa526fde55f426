"""How every script starts and how it fails, and the flags that several of them have."""

import logging
import os
import select
import signal
import sys
import types
import warnings
from collections.abc import Callable, Collection
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from input_pipeline import datasets
from input_pipeline.errors import UserError
from siamdff_jax import allocator, flag_parsing, machine_errors

flags.disclaim_key_flags()  # They are those of the script that asks for them, whose --help shows them.


def define_config(help_string: str, default: str | None = None) -> flags.FlagHolder:
  """The flag --config of a config file, whose values are set by --config.KEY=VALUE."""
  return flag_parsing.define_config("config", default, help_string)


def define_processes() -> None:
  """The flags of `join_processes`."""
  flags.DEFINE_bool("distributed", False, "Join the other processes that the cluster says there are.")
  flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0; joins the others by it.")
  flags.DEFINE_integer("num_processes", None, "With --coordinator.", lower_bound=1)
  flags.DEFINE_integer("process_id", None, "With --coordinator, from 0.", lower_bound=0)


def define_trackers() -> types.SimpleNamespace:
  """The flags that say which networks look at which sequences, by name."""
  return types.SimpleNamespace(
      checkpoint=flags.DEFINE_multi_string(
          "checkpoint", [], "Training workdir, a checkpoint in one, or a shipped model; NAME=CHECKPOINT names it. "
          "Repeat it to compare several."),
      format=flags.DEFINE_enum("format", None, list(datasets.FORMATS), "Layout of the data set.", required=True),
      root=flags.DEFINE_string("root", None, "Folder of the data set, or of one split.", required=True),
      out=flags.DEFINE_string("out", None, "Folder to write to.", required=True),
      tracker=flags.DEFINE_multi_string(
          "tracker", [], "NAME=VALUE: a setting of the checkpoints' trackers instead of their own, for example "
          "tiles=8. Repeat it for several."),
      only=flags.DEFINE_string("only", "", "Only sequences whose name contains this."))


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
  """The numbers of a list flag, ascending; raises a UserError for what is none of at least 1."""
  try:
    found = sorted(int(value) for value in flag.value or ())
  except ValueError:
    found = [0]
  if any(number < 1 for number in found):
    raise UserError(f"--{flag.name}={','.join(map(str, flag.value))}: expected whole numbers of at least 1, separated "
                    "by commas")
  return found


def join_processes() -> None:
  """Joins the others where the flags ask for it; to be called before anything else touches a device."""
  values = flags.FLAGS.flag_values_dict()
  given = [values[name] for name in ("coordinator", "num_processes", "process_id")]
  if values["distributed"] or any(value is not None for value in given):
    from siamdff_jax.parallel import distributed

    distributed.start(*given)


def run(main: Callable[[Any], Any], commands: Collection[str] = (), more: bool = False) -> None:
  """Runs `main(argv)` of a script with parsed absl flags.

  With `commands`, the script's first argument must be one of these names, and `main` is called with it instead of argv.
  With `more`, arguments that belong to no flag are allowed and left to `main`.

  A `UserError` (a user's data, checkpoint or arguments at fault) and what the machine refuses (`machine_errors`) become
  one sentence on stderr and exit code 1. Where nobody reads the output any more (`... | head`), the end is quiet.
  Anything else is our mistake and keeps its traceback.
  """

  def plain_logs() -> None:
    """Our own messages as plain lines; of the libraries only warnings."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = _PlainLines()
    for package in ("siamdff_jax", "input_pipeline"):
      logger = logging.getLogger(package)
      logger.handlers, logger.propagate = [handler], False
      logger.setLevel(logging.INFO)

  # ffmpeg is started by fork and exec at once, which JAX's threads do not disturb.
  warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)

  def guarded(argv: list[str]) -> Any:
    rest = argv[1 + bool(commands):]
    if rest and not more:
      raise UserError(f"unexpected argument {rest[0]!r}; options are written --name=value (see --help)")
    if not commands:
      return main(argv)
    if len(argv) < 2 or argv[1] not in commands:
      given = f"{argv[1]!r} is not a command" if len(argv) > 1 else "no command given"
      raise UserError(f"{given}, expected one of {', '.join(commands)} (see --help)")
    return main(argv[1])

  def ready(argv: list[str]) -> Any:
    plain_logs()
    if hasattr(sys.stdout, "reconfigure"):  # Names of files may be no text.
      sys.stdout.reconfigure(errors="backslashreplace")
    return guarded(argv)

  allocator.keep_freed_memory()
  if note := machine_errors.forget_64_bits():  # Before a config file may import JAX.
    print(note, file=sys.stderr)
  app.run(lambda argv: _with_errors(ready, argv), flags_parser=lambda argv: _with_errors(flag_parsing.parse, argv))


class _PlainLines(logging.StreamHandler):
  """Messages as plain lines on stderr; on a terminal in the place of a bar of progress, which is drawn anew below."""

  def format(self, record: logging.LogRecord) -> str:
    return _over_progress(record.getMessage())


def _over_progress(line: str) -> str:
  return f"\r\x1b[K{line}" if sys.stderr.isatty() else line


def _with_errors(function: Callable[[list[str]], Any], argv: list[str]) -> Any:
  """What `function(argv)` returns; an error of the user's or the machine's ends the process with a sentence."""
  try:
    try:
      found = function(argv)
    except SystemExit:  # Of --help.
      _flush()
      raise
    _flush()
    return found
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)
  except Exception as error:
    if isinstance(error, BrokenPipeError) and _unread():
      sys.exit(128 + signal.SIGPIPE)
    text = error if isinstance(error, UserError) else machine_errors.sentence(error)
    if text is None:
      raise
    print(_over_progress(f"error: {text}"), file=sys.stderr)
    sys.exit(1)


def _flush() -> None:
  """Writes what is printed: when Python itself does, at its end, a broken pipe or a full disk is no error any more."""
  if sys.stdout is not None:  # As it is where the caller has closed it.
    sys.stdout.flush()


def _unread() -> bool:
  """Whether nobody reads our output any more; if so, what is left of it goes nowhere."""
  gone = []
  for stream in filter(None, (sys.stdout, sys.stderr)):
    asked = select.poll()
    asked.register(stream.fileno(), 0)
    if any(event & select.POLLERR for _, event in asked.poll(0)):
      gone.append(stream)
  for stream in gone:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
  return bool(gone)
