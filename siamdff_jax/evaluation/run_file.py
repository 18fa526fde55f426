"""run.json in a tracker's folder: what the results there are of."""

import json
import os
from collections.abc import Mapping
from typing import Any

from input_pipeline import files
from input_pipeline.errors import UserError

NAME = "run.json"


def read(folder: str) -> dict[str, Any] | None:
  """What the file says; None where there is none. UserError where it is none of ours."""
  path = os.path.join(folder, NAME)
  try:
    with open(path, encoding="utf-8") as file:
      about = json.load(file)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise UserError(f"{path}: cannot be read ({error}), remove the folder to start again") from error
  if not isinstance(about, dict):
    raise UserError(f"{path}: expected a JSON object, remove the folder to start again")
  return about


def write(folder: str, about: Mapping[str, Any]) -> None:
  """Writes the file, whole or not at all."""
  files.write_atomically(os.path.join(folder, NAME), json.dumps(about, indent=2).encode() + b"\n")
