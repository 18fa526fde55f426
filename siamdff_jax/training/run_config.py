"""The config of a training, left in its workdir where people look for it; every checkpoint has its own."""

import os

import ml_collections
from etils import epath

from input_pipeline import files
from input_pipeline.errors import UserError
from siamdff_jax.parallel import distributed

CONFIG_FILE = "config.json"


def write_config(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Writes CONFIG_FILE into `workdir`, a folder (made where it is missing) or a bucket's url; the lead process does it.

  Raises:
    UserError: it cannot be written.
  """
  if not distributed.is_lead():
    return
  content = config.to_json_best_effort(indent=2)
  try:
    if "://" in workdir:
      (epath.Path(workdir) / CONFIG_FILE).write_text(content)  # Objects of a bucket are whole at every moment.
    else:
      os.makedirs(workdir, exist_ok=True)
      files.write_atomically(os.path.join(workdir, CONFIG_FILE), content)
  except OSError as error:
    raise UserError(f"{workdir}: cannot be written ({error.strerror or error})") from error
