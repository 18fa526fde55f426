"""SavedModel and TFLite by `jax2tf`, for TensorFlow Serving, phones and boards."""

import os
from typing import Any

import numpy as np

from input_pipeline.errors import UserError
from siamdff_jax.export import folder as folders
from siamdff_jax.export.passes import NAMES, Pass, Passes

TOLERANCE = 1e-4  # Another compiler, and on TFLite other kernels: rounding differs.
_PLATFORMS = ("cpu", "cuda", "tpu")
_SAVEDMODEL, _TFLITE = "SavedModel", "TFLite"
_TFLITE_FILES = {name: f"{name}.tflite" for name in NAMES}


def export_savedmodel(passes: Passes, folder: str) -> None:
  """Writes a SavedModel with the signatures "template" and "search" (any batch size), and manifest.json.

  Raises:
    UserError: see `folders.writing`.
  """
  import tensorflow as tf

  module = tf.Module()
  module.passes = {name: _function(passes, name, None, _PLATFORMS) for name in NAMES}
  with folders.writing(folder, passes, _SAVEDMODEL, {name: f"signature {name}" for name in NAMES}) as part:
    try:
      tf.saved_model.save(module, part, signatures={
          name: function.get_concrete_function() for name, function in module.passes.items()})
    except tf.errors.OpError as error:
      raise UserError(f"{folder}: cannot be written ({error.message})") from error


def load_savedmodel(passes: Passes, folder: str) -> dict[str, Pass]:
  """The exported passes; raises UserError when there is no whole SavedModel, see `folders.checked`."""
  import tensorflow as tf

  folders.checked(folder, _SAVEDMODEL, ["saved_model.pb"], passes)
  try:
    loaded = tf.saved_model.load(folder)
  except (OSError, ValueError, tf.errors.OpError) as error:
    raise UserError(f"{folder}: not a readable SavedModel ({error})") from error

  def bind(name: str) -> Pass:
    signature, names = loaded.signatures[name], list(passes.inputs[name])

    def run(*arrays: Any) -> list[np.ndarray]:
      out = signature(**{key: tf.constant(value) for key, value in zip(names, arrays, strict=True)})
      return [out[key].numpy() for key in passes.outputs[name]]

    return run

  return {name: bind(name) for name in NAMES}


def export_tflite(passes: Passes, folder: str) -> None:
  """Writes template.tflite and search.tflite (batch 1, built-in operations only) and manifest.json.

  Raises:
    UserError: see `folders.writing`.
  """
  import tensorflow as tf

  with folders.writing(folder, passes, _TFLITE, _TFLITE_FILES, batch=1) as part:
    for name in NAMES:
      concrete = _function(passes, name, 1, ("cpu",)).get_concrete_function()
      converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
      converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
      with open(os.path.join(part, _TFLITE_FILES[name]), "wb") as file:
        file.write(converter.convert())


def load_tflite(passes: Passes, folder: str) -> dict[str, Pass]:
  """The exported passes; raises UserError when a file is missing or damaged, see `folders.checked`."""
  import tensorflow as tf

  folders.checked(folder, _TFLITE, _TFLITE_FILES.values(), passes)

  def bind(name: str) -> Pass:
    path = os.path.join(folder, _TFLITE_FILES[name])
    try:
      # The signature is bound to its interpreter, which must outlive it.
      interpreter = tf.lite.Interpreter(path)
      signature, names = interpreter.get_signature_runner(), list(passes.inputs[name])
    except (ValueError, RuntimeError) as error:
      raise UserError(f"{path}: not a readable TFLite file ({error})") from error

    def run(*arrays: Any) -> list[np.ndarray]:
      out = signature(**dict(zip(names, arrays, strict=True)))
      return [out[key] for key in passes.outputs[name]]

    return run

  return {name: bind(name) for name in NAMES}


def _function(passes: Passes, name: str, batch: int | None, platforms: tuple[str, ...]) -> Any:
  """A pass as a tf.function with named inputs and a dict of named outputs."""
  import tensorflow as tf
  from jax.experimental import jax2tf

  inputs, outputs = passes.inputs[name], passes.outputs[name]
  converted = jax2tf.convert(
      passes.functions[name], with_gradient=False, native_serialization_platforms=platforms,
      polymorphic_shapes=["(batch, ...)"] * len(inputs) if batch is None else None)
  signature = [tf.TensorSpec((batch, *shape), tf.float32, name=key) for key, shape in inputs.items()]
  return tf.function(lambda *arrays: dict(zip(outputs, converted(*arrays), strict=True)), autograph=False,
                     input_signature=signature)
