"""StableHLO by `jax.export`: one program for CPU, CUDA and TPU, any batch size, loadable without this project.

In another program: `jax.export.deserialize(open("search.stablehlo", "rb").read()).call(...)`, with jax alone.
"""

import os

import jax
import jax.numpy as jnp
from jax import export as jax_export

from input_pipeline.errors import UserError
from siamdff_jax.export import folder as folders
from siamdff_jax.export.passes import NAMES, Pass, Passes

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5  # The same program through the same compiler.
_FORMAT = "jax.export (StableHLO)"
_FILES = {name: f"{name}.stablehlo" for name in NAMES}


def export(passes: Passes, folder: str) -> None:
  """Writes template.stablehlo, search.stablehlo and manifest.json.

  Raises:
    UserError: see `folders.writing`.
  """
  with folders.writing(folder, passes, _FORMAT, _FILES, platforms=PLATFORMS) as part:
    for name in NAMES:
      (batch,) = jax_export.symbolic_shape("batch")
      arguments = [jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for shape in passes.inputs[name].values()]
      program = jax_export.export(jax.jit(passes.functions[name]), platforms=PLATFORMS)(*arguments)
      with open(os.path.join(part, _FILES[name]), "wb") as file:
        file.write(program.serialize())


def load(folder: str) -> dict[str, Pass]:
  """The exported passes, arrays in and out in the manifest's order.

  Raises:
    UserError: see `folders.checked`.
  """
  folders.checked(folder, _FORMAT, _FILES.values())
  loaded: dict[str, Pass] = {}
  for name in NAMES:
    path = os.path.join(folder, _FILES[name])
    try:
      with open(path, "rb") as file:
        loaded[name] = jax.jit(jax_export.deserialize(bytearray(file.read())).call)
    except OSError as error:
      raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # The deserialiser documents none; a damaged file makes it raise many kinds.
      raise UserError(f"{path}: not a program written by jax.export ({type(error).__name__})") from error
  return loaded
