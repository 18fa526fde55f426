"""What a line of a box and a JSON text may look like: the same strict rules for label files and result files."""

import json
import re
from typing import Any

# float() alone would also take 1_000, digits of other scripts and "infinity".
_NUMBER = r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[nN][aA][nN])"
_LINE = re.compile(f"({_NUMBER})" + rf"(?:[ \t]*[,;][ \t]*|[ \t]+)({_NUMBER})" * 3 + r"(?:[ \t]*[,;])?", re.ASCII)
_ALONE = re.compile(_NUMBER, re.ASCII)


def lines(text: str) -> list[str]:
  """The lines without blanks around them and without blank lines at the end; none of an empty text."""
  text = text.rstrip(" \t\r\n")
  return [line.strip(" \t") for line in re.split(r"\r\n|\r|\n", text)] if text else []


def box(line: str) -> list[float] | None:
  """The four decimal numbers (or NaN) of a line, commas, semicolons, tabs or blanks between them; else None.

  One separator after the last is accepted.
  """
  found = _LINE.fullmatch(line)
  return [float(word) for word in found.groups()] if found else None


def number(text: str) -> float | None:
  """One decimal number (or NaN); else None."""
  return float(text) if _ALONE.fullmatch(text) else None


def parse_json(text: str | bytes) -> Any:
  """The value of a JSON text.

  Raises:
    ValueError: not JSON, or an object with a key twice (of which Python keeps the last and says nothing).
    RecursionError: nested too deep.
  """
  return json.loads(text, object_pairs_hook=_unique)


def short(value: object) -> str:
  """A short, one-line text of any value, for messages."""
  try:
    text = repr(value)
  except (ValueError, RecursionError):  # An integer of thousands of digits has no text.
    text = "something unprintable"
  return text if len(text) <= 60 else text[:57] + "..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  members = dict(pairs)
  if len(members) != len(pairs):
    raise ValueError("a key occurs twice")
  return members
