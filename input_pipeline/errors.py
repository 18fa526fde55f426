"""The one error that data problems raise."""


class DataError(ValueError):
  """A problem with a user's data: one sentence that names the file and what was expected.

  Scripts print it without a traceback and end with a non-zero exit code.
  """
