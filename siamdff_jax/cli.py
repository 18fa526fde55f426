"""How every script starts and how it fails."""

import logging
import sys

from absl import app
from absl import logging as absl_logging

from input_pipeline.errors import DataError


def run(main, commands=()):
  """Runs `main(argv)` of a script with parsed absl flags.

  With `commands`, the script's first argument must be one of these names, and `main` is called with it instead of argv.

  A `DataError` (a user's data, checkpoint or arguments at fault) becomes one sentence on stderr and exit code 1;
  anything else is our mistake and keeps its traceback.
  """

  def plain_logs():
    """Our own messages as plain lines; of the libraries only warnings."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in ("siamdff_jax", "input_pipeline"):
      logger = logging.getLogger(package)
      logger.handlers, logger.propagate = [handler], False
      logger.setLevel(logging.INFO)

  def guarded(argv):
    rest = argv[1 + bool(commands):]
    if rest:
      raise DataError(f"unexpected argument {rest[0]!r}; options are written --name=value (see --help)")
    if not commands:
      return main(argv)
    if len(argv) < 2 or argv[1] not in commands:
      given = f"{argv[1]!r} is not a command" if len(argv) > 1 else "no command given"
      raise DataError(f"{given}, expected one of {', '.join(commands)} (see --help)")
    return main(argv[1])

  def with_errors(argv):
    plain_logs()
    try:
      return guarded(argv)
    except DataError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      return 130

  app.run(with_errors)
