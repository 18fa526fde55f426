"""The one error of users' mistakes."""


class UserError(Exception):
  """Something that the user can mend, in data, config, flags or on the disk: one sentence that names it and what was
  expected.

  Commands print it without a traceback and end with a non-zero exit code. Everything else that is raised is a mistake
  of the project's.
  """
