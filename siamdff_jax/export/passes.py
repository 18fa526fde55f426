"""The tracker's two passes as plain functions with the weights inside: what every export format writes.

  template pass: template [B, St, St, 1], template_wh [B, 2] -> encoded template (`ENCODED`), once per target
  search pass:   encoded template, search [B, Ss, Ss, 1]     -> the head's outputs (`OUTPUTS`), once per frame

Images are grey levels in [0, 1]; the normalisation by mean and deviation is inside. Cropping and the choice of a cell
are the host's (see `tracking.tracker`); what it needs to know is in `Passes.manifest`. The search crops have the side
of the tracker's setting `search_side`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.errors import UserError
from siamdff_jax.models import devices
from siamdff_jax.models.backbone import LEVELS, STRIDE
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.tracker import Tracker

ENCODED = tuple(f"feature{level}" for level in LEVELS) + ("intensity", "mask")
OUTPUTS = ("class_logit", "quality_logit", "ltrb", "presence_logit")
NAMES = ("template", "search")

Pass = Callable[..., Sequence[Any]]  # Arrays in, arrays out, in the order of the names.
Shapes = dict[str, tuple[int, ...]]  # By array name, without the batch.


class Passes(NamedTuple):
  """Both passes of one tracker.

  Attributes:
    functions: {"template", "search"}: positional arrays in the order of `inputs` -> tuple in the order of `outputs`.
    inputs, outputs: {"template", "search"}: {array name: shape without the batch}; all float32.
    manifest: JSON-able description of files of these passes.
  """

  functions: dict[str, Pass]
  inputs: dict[str, Shapes]
  outputs: dict[str, Shapes]
  manifest: dict[str, Any]


def from_checkpoint(checkpoint: str, settings: Sequence[str] = ()) -> Passes:
  """The passes of a checkpoint (see `trained.find`), its tracker with other settings (see `configured.parse`).

  Raises:
    UserError: no such checkpoint, a network that cannot track, no such setting, or a process that does not run on the
      CPU.
  """
  # What is exported is run and compared there.
  if jax.default_backend() != "cpu":
    raise UserError("exports are made on the CPU: set the environment variable JAX_PLATFORMS=cpu")
  return from_tracker(*load_tracker(checkpoint, settings))


def from_tracker(tracker: Tracker, variables: Mapping[str, Any]) -> Passes:
  """The passes of a tracker and its network's variables."""
  model = tracker.model
  variables = jax.tree.map(jnp.asarray, variables)

  def template_pass(template: jax.Array, template_wh: jax.Array) -> tuple[jax.Array, ...]:
    with devices.traced_for("gpu"):
      encoded: Any = model.apply(variables, template, template_wh, method="encode_template")
    parts = {f"feature{level}": x for level, x in encoded["features"].items()} | encoded
    return tuple(parts[name].astype(jnp.float32) for name in ENCODED)

  def search_pass(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    parts = dict(zip((*ENCODED, "search"), arrays, strict=True))
    features = {level: parts[f"feature{level}"].astype(model.dtype) for level in LEVELS}
    encoded = {"features": features, "intensity": parts["intensity"].astype(model.dtype), "mask": parts["mask"],
               "backbone": {}}  # Only distillers look at the backbone's levels.
    with devices.traced_for("gpu"):
      out: Any = model.apply(variables, encoded, parts["search"], method="track")
    return tuple(out[name] for name in OUTPUTS)

  functions: dict[str, Pass] = {"template": template_pass, "search": search_pass}
  template_inputs: Shapes = {"template": (model.template_side, model.template_side, 1), "template_wh": (2,)}
  encoded = _output_shapes(template_pass, template_inputs, ENCODED)
  search_inputs = encoded | {"search": (tracker.sides.search, tracker.sides.search, 1)}
  inputs = {"template": template_inputs, "search": search_inputs}
  outputs = {"template": encoded, "search": _output_shapes(search_pass, search_inputs, OUTPUTS)}
  return Passes(functions, inputs, outputs, _manifest(tracker, inputs, outputs))


def _output_shapes(function: Pass, inputs: Shapes, names: Sequence[str]) -> Shapes:
  out = jax.eval_shape(function, *(jax.ShapeDtypeStruct((1, *s), jnp.float32) for s in inputs.values()))
  return {name: tuple(x.shape[1:]) for name, x in zip(names, out, strict=True)}


def _described(arrays: Shapes) -> list[dict[str, Any]]:
  return [{"name": name, "shape": ["batch", *shape], "dtype": "float32"} for name, shape in arrays.items()]


def _manifest(tracker: Tracker, inputs: Mapping[str, Shapes], outputs: Mapping[str, Shapes]) -> dict[str, Any]:
  model, side = tracker.model, tracker.sides.search
  return {
      "passes": {name: {"inputs": _described(inputs[name]), "outputs": _described(outputs[name])} for name in NAMES},
      "images": {
          "layout": "NHWC", "range": [0, 1], "template_side": model.template_side, "search_side": side,
          "normalisation": {"mean": model.mean, "std": model.std, "where": "inside the template and search passes"}},
      "template_wh": "width and height of the target in pixels of the template crop; the target is at its centre",
      "crops": "template: square about the box's centre with side sqrt((w+p)(h+p)), p=(w+h)/2, frame pixels; search: "
               f"the same times search_side/template_side = {side}/{model.template_side}; bilinear, the frame's mean "
               "outside of it",
      "ltrb": f"distances to the box's sides in search-crop pixels from the cell's centre, which for cell k of n is at "
              f"search_side/2 + {STRIDE}*(k - (n-1)/2), search_side/2 = {side / 2}, in coordinates whose pixels are "
              "[i, i+1)",
      "score": "sigmoid(class_logit) * sigmoid(quality_logit) per cell",
      "presence": "per image, with the settings in `tracker.belief`: sigmoid(presence_scale * presence_logit + "
                  "presence_bias + presence_ratio * r), r the log ratio of the best cell's score to the best one a "
                  "target's size away (siamdff_jax/tracking/peaks.py)",
      "tracker": tracker.settings.to_dict(),
  }


def random_inputs(passes: Passes, batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
  """Noise crops and target sizes: {"template", "template_wh", "search"}, float32, leading axis `batch`."""
  rng = np.random.default_rng(seed)
  side = passes.inputs["template"]["template"][0]
  return {
      "template": rng.random((batch, *passes.inputs["template"]["template"]), np.float32),
      "template_wh": rng.uniform(side / 8, side / 2, (batch, 2)).astype(np.float32),
      "search": rng.random((batch, *passes.inputs["search"]["search"]), np.float32),
  }


def max_differences(passes: Passes, exported: Mapping[str, Pass], batch: int = 1, seed: int = 0) -> dict[str, float]:
  """Runs exported passes and the live ones on the same noise.

  Args:
    passes: the live ones.
    exported: {"template", "search"}: positional arrays -> sequence of arrays, both in the order of the names.

  Returns:
    {array name: largest absolute difference, relative to the array's largest value where that is above 1}. The
    exported search pass sees the exported template pass's output.

  Raises:
    UserError: an output of another shape, or one that is not finite, also where the live one is not.
  """
  inputs = random_inputs(passes, batch, seed)
  ours = _outputs({name: jax.jit(function) for name, function in passes.functions.items()}, inputs)
  theirs = _outputs(exported, inputs)
  differences = {}
  for name, live in ours.items():
    other = theirs[name]
    if not np.isfinite(live).all():
      raise UserError(f"the network's {name} is not finite on noise, there is nothing to compare the export with")
    if other.shape != live.shape or not np.isfinite(other).all():
      raise UserError(f"the exported model's {name} has shape {other.shape} and must be finite, {live.shape} expected")
    differences[name] = float(np.abs(other - live).max() / max(1.0, np.abs(live).max()))
  return differences


def _outputs(functions: Mapping[str, Pass], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """What the template pass gives, and the search pass on it, by name."""
  encoded = functions["template"](inputs["template"], inputs["template_wh"])
  encoded = [np.asarray(x) for x in encoded]
  out = [np.asarray(x) for x in functions["search"](*encoded, inputs["search"])]
  return dict(zip(ENCODED + OUTPUTS, encoded + out, strict=True))
