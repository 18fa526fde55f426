"""Export in any format, followed by a run of what was written: what `scripts/export.py` does."""

from collections.abc import Sequence

import ml_collections

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import safetensors, trained
from siamdff_jax.export import onnx, passes, savedmodel, stablehlo
from siamdff_jax.models.load import load_model
from siamdff_jax.tracking.load import load_tracker

FORMATS = ("safetensors", "stablehlo", "savedmodel", "tflite", "onnx")
_WEIGHT_TOLERANCE = {"float32": 0.0, "float16": 0.02}


def export(checkpoint: str, kind: str, out: str, dtype: str | None = None, notes: dict[str, str] | None = None,
           settings: Sequence[str] = ()) -> tuple[dict[str, float], float]:
  """Writes `checkpoint` to `out` and compares what was written with the live network on noise.

  Args:
    checkpoint: see `trained.find`.
    kind: one of `FORMATS`.
    out: a .safetensors file, or a folder for the other formats.
    dtype: of the kernels in a .safetensors file, float16 where nothing is said; the other formats hold float32.
    notes: for a .safetensors file.
    settings: of the tracker instead of the checkpoint's, see `configured.parse`.

  Returns:
    The largest difference by output (see `passes.max_differences`), and how large it may be.

  Raises:
    UserError: the checkpoint, a setting or `out` is at fault, `dtype` or `notes` are given to a format that takes none,
      or the format's packages are not installed.
  """
  if kind != "safetensors" and (dtype or notes):
    raise UserError(f"--dtype and --note are for --format=safetensors; {kind} holds float32 and no notes")
  live = passes.from_checkpoint(checkpoint, settings)
  if kind == "safetensors":
    config, dtype = without_paths(trained.load_config(checkpoint)), dtype or "float16"
    if settings:
      config.tracker = ml_collections.ConfigDict(live.manifest["tracker"])
    safetensors.save(out, config, load_model(checkpoint)[1], dtype, notes)
    written = passes.from_tracker(*load_tracker(out)).functions
    return passes.max_differences(live, written), _WEIGHT_TOLERANCE[dtype]
  if kind == "stablehlo":
    stablehlo.export(live, out)
    return passes.max_differences(live, stablehlo.load(out), batch=2), stablehlo.TOLERANCE
  if kind == "savedmodel":
    savedmodel.export_savedmodel(live, out)
    return passes.max_differences(live, savedmodel.load_savedmodel(live, out), batch=2), savedmodel.TOLERANCE
  if kind == "tflite":
    savedmodel.export_tflite(live, out)
    return passes.max_differences(live, savedmodel.load_tflite(live, out)), savedmodel.TOLERANCE
  if kind == "onnx":
    onnx.export(live, out)
    return passes.max_differences(live, onnx.load(live, out), batch=2), onnx.TOLERANCE
  raise UserError(f"--format={kind}: expected one of {', '.join(FORMATS)}")


def without_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy of a training config without the paths of the machine it was trained on (data, teacher, initial weights)."""
  config = ml_collections.ConfigDict(config.to_dict())
  for split in ("train", "validation"):
    for source in config.data.get(split, {}).values():
      source.root = ""
  config.data.records = ""
  config.teacher.checkpoint = ""
  for name in ("init_checkpoint", "init_backbone"):
    if name in config.train:
      config.train[name] = ""
  return config
