"""What somebody meant by a misspelled name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """A question with the nearest known name, to be put behind a sentence: "; did you mean 'steps'?", or "" where none is
  near."""
  spelled = {one.lower(): one for one in known}
  near = difflib.get_close_matches(name.lower(), spelled, n=1)
  return f"; did you mean {spelled[near[0]]!r}?" if near else ""
