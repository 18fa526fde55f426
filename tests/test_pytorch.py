"""The PyTorch side of the speed comparison computes what ours computes."""

import jax
import numpy as np
import pytest

import small
from input_pipeline.errors import UserError
from siamdff_jax import losses
from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import make_step

torch = pytest.importorskip("torch", reason="needs requirements-bench.txt")

from benchmarks import pytorch, pytorch_tracker, pytorch_training, pytorch_weights  # noqa: E402

HEAD = ("class_logit", "quality_logit", "ltrb", "presence_logit")


def variables_of(model):
  """Random variables, none of them zero; variances are positive."""
  variables = {"params": small.random_params(model, *small.inputs(0))}
  shapes = abstract_variables(model).get("batch_stats")
  if shapes:
    rng = np.random.default_rng(1)

    def draw(path, x):
      values = rng.uniform(0.5, 2, x.shape) if path[-1].key == "var" else 0.2 * rng.normal(size=x.shape)
      return values.astype(np.float32)

    variables["batch_stats"] = jax.tree_util.tree_map_with_path(draw, shapes)
  return variables


def tensors(arrays):
  return {name: torch.tensor(value) for name, value in arrays.items()}


def torch_images(*images):
  return [torch.tensor(image.transpose(0, 3, 1, 2)) for image in images]


@pytest.mark.parametrize("norm,bottleneck,stem,padding", [("group", False, 3, 2), ("batch", True, 7, 0)])
def test_forward_is_equal(norm, bottleneck, stem, padding):
  config = small.config(norm=norm, correlation_padding=padding)
  config.model.backbone.update(bottleneck=bottleneck, stem_kernel=stem)
  model = build(config.model)
  variables, (template, wh, search) = variables_of(model), small.inputs(3)
  apply = jax.jit(lambda v, *x: {name: value for name, value in model.apply(v, *x).items() if name in HEAD})
  expected = apply(variables, template, wh, search)

  network = pytorch_tracker.SiamDFF(config.model).eval()
  pytorch_weights.load_variables(network, variables, bottleneck)
  images = torch_images(template, search)
  with torch.inference_mode():
    found = network(images[0], torch.tensor(wh), images[1])
  for name in HEAD:
    np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_losses_are_equal():
  config, rng, side = small.config(), np.random.default_rng(0), small.RESPONSE_CELLS
  batch = small.batch(1)
  batch["search_box_ltrb"][0] = [60, 60, 64, 63]  # Smaller than a cell: the nearest one is positive.
  out = {name: rng.normal(size=(8, side, side)).astype(np.float32) for name in HEAD[:2]}
  out["ltrb"] = rng.uniform(2, 60, (8, side, side, 4)).astype(np.float32)
  out["presence_logit"] = rng.normal(size=8).astype(np.float32)
  counts = losses.label_counts(batch, side, small.SEARCH_SIDE)
  expected = losses.task_losses(out, batch, counts, config.loss, small.SEARCH_SIDE)
  found = pytorch_training.task_losses(tensors(out), tensors(batch), config.loss.weights, small.SEARCH_SIDE)
  for name, value in found.items():
    np.testing.assert_allclose(value, expected[f"loss/{name}"], rtol=1e-4, err_msg=name)


def test_training_steps_are_equal():
  """Loss and gradient norm of three steps: the same gradients, clipping and updates."""
  config = small.config(norm="batch")
  config.optimizer.update(kind="adamw", learning_rate=1e-3, warmup_steps=0, final_fraction=1.0, backbone_factor=0.1)
  model, batch = build(config.model), small.batch(2)
  variables = variables_of(model)
  rule = optimizer(config.optimizer, 10)
  state = TrainState(step=np.int32(0), params={"student": variables["params"], "distiller": {}},
                     batch_stats=variables["batch_stats"], ema=variables["params"], bad_steps=np.int32(0),
                     opt_state=rule.init({"student": variables["params"], "distiller": {}}))
  step = jax.jit(make_step(model, rule, config))
  expected = []
  for _ in range(3):
    state, metrics = step(state, batch)
    expected.append([float(metrics["loss"]), float(metrics["grad_norm"])])

  network = pytorch_tracker.SiamDFF(config.model)
  pytorch_weights.load_variables(network, variables, False)
  train = pytorch_training.TrainingStep(network, config)
  tensors = pytorch.torch_batch(batch, "cpu")
  found = [[float(value) for value in train(tensors).values()] for _ in range(3)]
  assert len({loss for loss, _ in expected}) == 3
  np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_comparison_has_a_row_for_every_form():
  config = small.config(norm="batch")
  config.optimizer.kind = "adamw"
  rows = pytorch.compare(config, batch=1, repeats=1, modes=("eager", "channels_last"), passes=("search", "forward"))
  assert [(row["pass"], row["form"]) for row in rows] == [
      (name, form) for name in ("search", "forward")
      for form in ("jax", "torch eager", "torch channels_last")]
  for row in rows:
    assert row["ms"] > 0 and row["gflop"] > 0
    np.testing.assert_allclose(row["gflop_per_s"], row["gflop"] / row["ms"] * 1e3)
  best = min(row["ms"] for row in rows[1:3])
  np.testing.assert_allclose(rows[0]["speed_over_best_torch"], best / rows[0]["ms"])


def test_a_form_that_fails_says_why(monkeypatch):
  def broken(*_, **__):
    raise RuntimeError("no compiler\nsecond line")

  monkeypatch.setattr(torch, "compile", broken)
  config = small.config()
  config.optimizer.kind = "adamw"
  rows = pytorch.compare(config, batch=1, repeats=1, modes=("eager", "compile"), passes=("search",))
  assert rows[-1]["form"] == "torch compile" and "no compiler" in rows[-1]["note"]
  assert rows[-1]["ms"] is None and rows[0]["ms"] > 0


def test_other_networks_are_refused():
  with pytest.raises(UserError, match="ResNet"):
    pytorch_tracker.SiamDFF(small.config(use_sten=False).model)
