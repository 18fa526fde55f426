"""What somebody meant by a misspelled name."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
  """The known name that is most like `name`, upper or lower case; None where none is like it by `least`, 0..1."""
  spelled = {one.lower(): one for one in known}
  near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=least)
  return spelled[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
  """The question with the nearest known name behind `prefix`, to end a sentence with; "" where there is none."""
  near = nearest(name, known)
  return "" if near is None else f"; did you mean '{prefix}{near}'?"
