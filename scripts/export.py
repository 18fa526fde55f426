#!/usr/bin/env python3
"""Exports a tracker, runs what was written, and compares it with the network.

  scripts/export.py --checkpoint runs/student --format safetensors --out student.safetensors
  scripts/export.py --checkpoint runs/student --format stablehlo --out exported/

Formats: safetensors (weights and config in one file, which every --checkpoint takes), stablehlo (jax.export; CPU,
CUDA, TPU), savedmodel, tflite, onnx (needs `pip install --no-deps -r requirements-export.txt`). All but the first write
the two passes, template and search, with the weights inside, and manifest.json with names, shapes and the host's part.
The search crops have the tracker's own side (search_side). The manifest holds the SHA-256 of every file; what is loaded
here is checked by it first. Exits with 1 when the outputs differ by more than the format allows.
"""

from absl import flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.errors import UserError
from siamdff_jax import cli

_FORMATS = ("safetensors", "stablehlo", "savedmodel", "tflite", "onnx")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Training workdir or checkpoint, .safetensors, or shipped model.")
_FORMAT = flags.DEFINE_enum("format", None, _FORMATS, "What to write.")
_OUT = flags.DEFINE_string("out", None, "A .safetensors file, or a folder for the other formats.")
_DTYPE = flags.DEFINE_enum("dtype", None, ("float16", "float32"), "Of the kernels; safetensors only, where the default "
                           "is float16.")
_NOTE = flags.DEFINE_multi_string("note", [], "KEY=TEXT to keep with the weights, e.g. licence; safetensors only.")
_TRACKER = flags.DEFINE_multi_string("tracker", [], "NAME=VALUE: a setting of the tracker instead of the checkpoint's, "
                                     "for example search_side=191. Repeat it for several.")
flags.mark_flags_as_required(["checkpoint", "format", "out"])


def main(_: list[str]) -> int:
  import jax

  jax.config.update("jax_platforms", "cpu")  # The form of the network that exports with any batch size.
  from siamdff_jax.export import formats

  if any("=" not in note for note in _NOTE.value):
    raise UserError(f"--note: expected KEY=TEXT, found {_NOTE.value}")
  notes = dict(note.split("=", 1) for note in _NOTE.value)
  if len(notes) < len(_NOTE.value):
    raise UserError(f"--note: one KEY twice in {_NOTE.value}")
  differences, tolerance = formats.export(_CHECKPOINT.value, _FORMAT.value, _OUT.value, _DTYPE.value, notes,
                                          _TRACKER.value)
  for name, difference in differences.items():
    print(f"{name:16s} {difference:.2e}")
  worst = max(differences.values())
  print(f"{_OUT.value}: written and run; largest difference from the network {worst:.2e} (allowed {tolerance:.0e})")
  return 0 if worst <= tolerance else 1


if __name__ == "__main__":
  cli.run(main)
