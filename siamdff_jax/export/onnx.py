"""ONNX by jax2onnx, for ONNX Runtime and TensorRT. An extra: see requirements-export.txt."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from input_pipeline.errors import UserError
from siamdff_jax.export import folder as folders
from siamdff_jax.export.passes import NAMES, Pass, Passes

TOLERANCE = 1e-4  # Another runtime's kernels: rounding differs.
_FORMAT = "ONNX"
_FILES = {name: f"{name}.onnx" for name in NAMES}
# Left out of jax2onnx 0.17.1: the first makes ResNets invalid (transposes removed on one side of an addition), the
# second drops inputs that a network does not use, so that files would differ from the manifest.
_SKIPPED = ("remove_redundant_transpose_pairs", "prune_unused_graph_inputs")


def export(passes: Passes, folder: str) -> None:
  """Writes template.onnx and search.onnx (any batch size; large weights in a file beside it) and manifest.json.

  Raises:
    UserError: jax2onnx is not installed; see `folders.writing`.
  """
  _require("jax2onnx")
  for noisy in ("jax2onnx", "onnx_ir"):
    logging.getLogger(noisy).setLevel(logging.CRITICAL)  # They warn about plugins and shapes that are not ours.
  from jax2onnx import to_onnx

  with folders.writing(folder, passes, _FORMAT, _FILES) as part, _without_broken_passes():
    for name in NAMES:
      inputs, outputs = passes.inputs[name], passes.outputs[name]
      to_onnx(passes.functions[name], inputs=[("batch", *shape) for shape in inputs.values()],
              input_names=list(inputs), output_names=list(outputs), model_name=f"siamdff_{name}", return_mode="file",
              output_path=os.path.join(part, _FILES[name]))


def load(passes: Passes, folder: str) -> dict[str, Pass]:
  """The exported passes in ONNX Runtime on the CPU.

  Raises:
    UserError: onnxruntime is not installed; see `folders.checked`.
  """
  onnxruntime = _require("onnxruntime")
  folders.checked(folder, _FORMAT, _FILES.values(), passes)
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3

  def bind(name: str) -> Pass:
    path = os.path.join(folder, _FILES[name])
    try:
      session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's kinds of error share no other base.
      raise UserError(f"{path}: ONNX Runtime cannot load it ({error})") from error
    inputs, outputs = list(passes.inputs[name]), list(passes.outputs[name])
    return lambda *arrays: session.run(outputs, dict(zip(inputs, arrays, strict=True)))

  return {name: bind(name) for name in NAMES}


def _require(package: str) -> Any:
  try:
    return __import__(package)
  except ImportError as error:
    raise UserError(f"ONNX export needs {package}, an extra: install it with "
                    "`pip install --no-deps -r requirements-export.txt`") from error


@contextlib.contextmanager
def _without_broken_passes() -> Iterator[None]:
  from jax2onnx.converter import ir_optimizations

  everything = ir_optimizations._OPTIMIZER_PASSES
  ir_optimizations._OPTIMIZER_PASSES = tuple(step for step in everything if step.name not in _SKIPPED)
  try:
    yield
  finally:
    ir_optimizations._OPTIMIZER_PASSES = everything
