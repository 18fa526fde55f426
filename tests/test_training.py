"""The step: layouts over devices, accumulation, bad batches, distillation, the optimizer's rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import small
from input_pipeline.errors import UserError
from siamdff_jax import distillation
from siamdff_jax.models.build import build
from siamdff_jax.parallel import layouts as parallel
from siamdff_jax.training import assembly, loop
from siamdff_jax.training.state import optimizer, schedule
from siamdff_jax.training.step import make_step, network_inputs

STEPS = 2


def training_config(**model):
  """Plain momentum SGD without clipping, in which a gradient of the wrong scale shows."""
  config = small.config(**model)
  config.optimizer.update(kind="sgd", learning_rate=0.02, warmup_steps=0, clip_norm=1e9, weight_decay=1e-4)
  return config


@functools.cache
def compiled(kind="mesh", devices=1, fsdp=False, norm="group", features=16, accumulate=1, plain=True, remat=False,
             dtype="float32"):
  """(layout, compiled step, state to start from)."""
  config = training_config(norm=norm, features=features, dtype=dtype, **(small.PLAIN if plain else {}))
  config.model.backbone.remat = remat
  config.train.accumulate = accumulate
  config.layout.update(kind=kind, fsdp=fsdp)
  layout = parallel.make_layout(config.layout, 8, jax.devices("cpu")[:devices])
  rule = optimizer(config.optimizer, config.train.steps)
  step = layout.compile(make_step(build(config.model, layout.axis_name), rule, config, axis_name=layout.axis_name))
  return layout, lambda state, batch: step(state, layout.put_sharded(batch), {}, None), small.start_state(config)


@functools.cache
def run(**options):
  """(states, metrics) of `STEPS` steps on the same batches: numpy, the state before the first step included."""
  layout, step, initial = compiled(**options)
  state, states, metrics = layout.put_state(initial), [initial], []
  for n in range(STEPS):
    state, found = step(state, small.batch(n))
    states.append(jax.device_get(state))
    metrics.append(jax.device_get(found))
    sharded = any(not x.sharding.is_fully_replicated for x in jax.tree.leaves((state.params, state.opt_state)))
    assert sharded == options.get("fsdp", False)
  return states, metrics


def assert_trees_close(a, b, scale_of=None, rtol=1e-5, atol=1e-6):
  """Leaf by leaf; differences count relative to the largest entry of the leaf in `scale_of` (default: `b`)."""
  scale_of = b if scale_of is None else scale_of
  leaves = jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), jax.tree.leaves(scale_of)
  for (path, x), y, s in zip(*leaves, strict=True):
    limit = rtol * np.abs(s).max() + atol
    assert np.abs(x - y).max() <= limit, f"{jax.tree_util.keystr(path)}: {np.abs(x - y).max()} > {limit}"


def assert_same_training(found, expected):
  """Losses, the gradient's norm, what the parameters moved by, and the statistics."""
  for a, b in zip(found[1], expected[1], strict=True):
    assert a.keys() == b.keys()
    for name in a:
      assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5), name
  start, end = expected[0][0], expected[0][-1]
  moved = jax.tree.map(lambda a, b: a - b, end.params, start.params)
  assert np.mean([np.abs(x).max() > 1e-5 for x in jax.tree.leaves(moved)]) > 0.9
  assert_trees_close(found[0][-1].params, end.params, moved, rtol=0.02, atol=2e-6)
  assert_trees_close(found[0][-1].batch_stats, end.batch_stats, rtol=1e-3, atol=1e-5)
  assert_trees_close(found[0][-1].ema, end.ema, moved["student"], rtol=0.02, atol=2e-6)
  assert found[0][-1].step == end.step == STEPS and found[0][-1].bad_steps == 0


WIDE = dict(norm="batch", features=48)  # So that there is something to shard.


@pytest.mark.parametrize("layout", [dict(kind="pmap"), dict(kind="mesh"), dict(kind="mesh", fsdp=True)], ids=str)
def test_eight_devices_equal_one(layout):
  """One pair per device, some without a target: statistics, counts and gradients must all be global."""
  assert_same_training(run(devices=8, **layout, **WIDE), run(devices=1, **WIDE))


def test_batch_statistics_are_those_of_the_global_batch():
  """After the first step: 0.9 of the start plus 0.1 of the mean of the stem over all 8 searches and templates."""
  states, _ = run(devices=8, kind="pmap", **WIDE)
  before, after = (s.batch_stats["backbone"]["stem"]["Norm_0"]["BatchNorm_0"]["mean"] for s in states[:2])
  kernel = states[0].params["student"]["backbone"]["stem"]["kernel"]
  config, expected = training_config().model, before
  for image in network_inputs(small.batch(0), False)[::2]:  # The template first, then the search.
    x = (image - config.mean) / config.std
    features = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = 0.9 * expected + 0.1 * features.mean((0, 1, 2))
  np.testing.assert_allclose(after, expected, atol=1e-4)
  assert np.abs(after - before).max() > 1e-3


@pytest.mark.slow
def test_eight_devices_equal_one_with_all_modules():
  whole = dict(norm="batch", plain=False)
  assert_same_training(run(kind="pmap", devices=8, **whole), run(**whole))


@pytest.mark.parametrize("layout", [dict(), pytest.param(dict(kind="pmap", devices=2), marks=pytest.mark.slow)],
                         ids=str)
def test_accumulation_equals_the_whole_batch(layout):
  assert_same_training(run(accumulate=2, **layout), run())


def test_layouts_refuse_what_cannot_be_shared():
  layout = small.config().layout
  with pytest.raises(UserError, match="batch size 6 cannot be shared equally by 4 devices"):
    parallel.make_layout(layout, 6, jax.devices("cpu")[:4])
  layout.kind = "ring"
  with pytest.raises(UserError, match="'ring', expected 'pmap' or 'mesh'"):
    parallel.make_layout(layout, 8)


def test_accumulation_must_divide_the_batch():
  layout, step, initial = compiled(accumulate=3)
  with pytest.raises(UserError, match="accumulate=3 does not divide the 8 pairs"):
    step(layout.put_state(initial), small.batch(0))


def test_metrics_and_moving_average():
  states, metrics = run()
  for found in metrics:
    terms = [found[name] for name in found if name.startswith("loss/")]
    assert len(terms) == 4 and found["loss"] == pytest.approx(sum(terms), rel=1e-5)
    assert {"iou", "grad_norm", "bad_steps"} <= found.keys()
  ema = states[0].params["student"]
  for t, state in enumerate(states[1:]):
    decay = min(0.998, (1 + t) / (10 + t))
    ema = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, ema, state.params["student"])
    assert_trees_close(state.ema, ema)


def test_first_step_is_gradient_descent():
  """p - lr * (g + decay * p), decay on kernels; the norm of g is the one that is logged."""
  states, metrics = run()
  config = training_config().optimizer
  learning_rate, decay = config.learning_rate, config.weight_decay
  moved = jax.tree.map(lambda a, b: (a - b) / learning_rate, states[0].params, states[1].params)
  gradient = jax.tree.map(lambda m, p: m - decay * p * (p.ndim > 1), moved, states[0].params)
  assert optax.global_norm(gradient) == pytest.approx(float(metrics[0]["grad_norm"]), rel=1e-2)


def first_gradient(states) -> np.ndarray:
  """All of it as one vector, from the plain SGD's first step."""
  config = training_config().optimizer
  moved = jax.tree.map(lambda a, b: (a - b) / config.learning_rate, states[0].params, states[1].params)
  parts = jax.tree.map(lambda m, p: m - config.weight_decay * p * (p.ndim > 1), moved, states[0].params)
  return np.concatenate([x.ravel() for x in jax.tree.leaves(parts)])


def test_recomputed_activations_change_nothing():
  assert_same_training(run(remat=True), run())


def test_bfloat16_is_near_float32():
  """About 1 % of the loss and of the gradient (8 bits of mantissa); the state and the losses stay float32."""
  half, full = run(dtype="bfloat16"), run()
  assert half[1][0]["loss"] == pytest.approx(full[1][0]["loss"], rel=0.03)
  a, b = first_gradient(half[0]), first_gradient(full[0])
  assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.99
  assert np.linalg.norm(a) == pytest.approx(np.linalg.norm(b), rel=0.05)
  assert half[1][0]["loss"] != full[1][0]["loss"]  # It did compute in another precision.
  for x, y in zip(jax.tree.leaves((half[0][-1], half[1])), jax.tree.leaves((full[0][-1], full[1])), strict=True):
    assert x.dtype == y.dtype


@pytest.mark.parametrize("options", [dict(), dict(kind="pmap", devices=8, **WIDE)], ids=["mesh", "pmap"])
def test_the_old_state_gives_its_memory_to_the_new(options):
  layout, step, initial = compiled(**options)
  old = layout.put_state(initial)
  new, _ = step(old, small.batch(0))
  assert all(x.is_deleted() for x in jax.tree.leaves(old))
  assert not any(x.is_deleted() for x in jax.tree.leaves(new))


# --- bad batches


@pytest.fixture
def single():
  """(the step on one device, a fresh state)."""
  layout, step, initial = compiled()
  return step, lambda: layout.put_state(initial)


def bad_batch():
  batch = small.batch(5)
  batch["search_box_ltrb"][2] = np.nan
  return batch


def test_a_batch_with_a_non_finite_gradient_changes_nothing_but_counters(single):
  step, fresh = single
  good, _ = step(fresh(), small.batch(0))
  before = jax.device_get(good)
  after, metrics = step(good, bad_batch())
  assert not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_norm"])
  found = jax.device_get(after)
  for name in ("params", "batch_stats", "opt_state", "ema"):
    for a, b in zip(jax.tree.leaves(getattr(found, name)), jax.tree.leaves(getattr(before, name)), strict=True):
      np.testing.assert_array_equal(a, b)
  assert found.step == 2 and found.bad_steps == metrics["bad_steps"] == 1
  after, _ = step(after, bad_batch())
  assert after.bad_steps == 2
  after, metrics = step(after, small.batch(1))
  assert after.bad_steps == 0 and after.step == 4 and np.isfinite(metrics["loss"])


def test_a_batch_without_any_target_has_a_usual_gradient(single):
  step, fresh = single
  batch = small.batch(0)
  batch["present"][:] = 0
  batch["search_box_ltrb"][:] = 0
  _, metrics = step(fresh(), batch)
  _, usual = step(fresh(), small.batch(0))
  assert 0 < metrics["grad_norm"] < 100 * usual["grad_norm"] and metrics["loss"] < 100 * usual["loss"]


class _Feed:
  """Stands in for the data."""

  prepare, whole, replicated = None, (), {}

  def __init__(self, layout):
    self._batch = layout.put_sharded(small.batch(0))

  def __next__(self):
    return self._batch


def fake_training(monkeypatch, tmp_path, bad_from: int, **train):
  """The loop with a step that only counts; every step from `bad_from` on is bad."""
  config = small.config()
  config.data.train = dict(any=dict(format="plain", root="-", weight=1.0))
  config.train.update(train)

  def counting(*_, **__):
    def step(state, batch, teacher):
      bad = jnp.where(state.step + 1 >= bad_from, state.bad_steps + 1, 0)
      metrics = {"loss": jnp.float32(1), "bad_steps": bad}
      return state.replace(step=state.step + 1, bad_steps=bad), metrics
    return step

  monkeypatch.setattr(assembly, "make_step", counting)
  monkeypatch.setattr(loop.sources, "sampler", lambda *_: None)
  monkeypatch.setattr(loop.feeds, "make", lambda config, sampler, layout, start: _Feed(layout))
  return loop.train(config, str(tmp_path))


def test_too_many_bad_steps_end_the_run(monkeypatch, tmp_path):
  """As soon as the count is looked at, whatever went well before in the same stretch of the log."""
  with pytest.raises(UserError, match=r"not finite for 5 steps in a row up to step 8; .*learning_rate"):
    fake_training(monkeypatch, tmp_path, bad_from=4, steps=40, log_every=4, max_bad_steps=4, checkpoint_every=100)


# --- distillation


@functools.cache
def distilled():
  """(config, student, teacher, its variables, distiller, state to start from). The teacher is wider, and privileged."""
  config = training_config(**small.PLAIN)
  config.distiller.update(kind="contextual", weight=2.0)
  teacher_config = small.config(features=24, prior_channel=True, **small.PLAIN)
  teacher_config.model.backbone.widths = (8, 8, 16, 16)
  student, teacher, variables, distiller, distiller_params = small.distillation_of(config, teacher_config)
  return config, student, teacher, variables, distiller, small.start_state(config, distiller_params)


@functools.cache
def run_distilled(kind, devices):
  """As `run`."""
  config, _, teacher, variables, distiller, initial = distilled()
  config = config.copy_and_resolve_references()
  config.layout.kind = kind
  layout = parallel.make_layout(config.layout, 8, jax.devices("cpu")[:devices])
  step = layout.compile(make_step(
      build(config.model, layout.axis_name), optimizer(config.optimizer, config.train.steps), config,
      axis_name=layout.axis_name, distiller=distiller, teacher=teacher))
  state, placed, states, metrics = layout.put_state(initial), layout.put_state(variables), [initial], []
  for n in range(STEPS):
    state, found = step(state, layout.put_sharded(small.batch(n)), {}, placed)
    states.append(jax.device_get(state))
    metrics.append(jax.device_get(found))
  for a, b in zip(jax.tree.leaves(placed), jax.tree.leaves(variables), strict=True):
    np.testing.assert_array_equal(a, b)  # The teacher stays as it is.
  return states, metrics


def test_a_distilled_step_logs_every_term():
  """By name, times the weight, over eight devices the same as the distiller gives on the whole batch."""
  states, metrics = run_distilled("pmap", 8)
  _, student, teacher, variables, distiller, initial = distilled()
  batch, found = small.batch(0), metrics[0]

  @jax.jit
  def terms():
    ours = student.apply({"params": initial.params["student"]}, *network_inputs(batch, False))
    theirs = teacher.apply(variables, *network_inputs(batch, True))
    return distiller.apply({"params": initial.params["distiller"]}, ours, theirs, batch["template_wh"],
                           batch["search_box_ltrb"], batch["present"])

  expected = terms()
  assert set(expected) == set(distillation.contextual.WEIGHTS)
  assert {name for name in found if "distill" in name} == {f"loss/distill_{name}" for name in expected}
  for name, value in expected.items():
    assert value > 0 and found[f"loss/distill_{name}"] == pytest.approx(2 * float(value), rel=1e-3), name
  assert found["loss"] == pytest.approx(sum(v for k, v in found.items() if k.startswith("loss/")), rel=1e-5)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), states[-1].params["distiller"], initial.params["distiller"])
  assert np.mean([x > 1e-7 for x in jax.tree.leaves(moved)]) > 0.8


@pytest.mark.slow
def test_distilled_eight_devices_equal_one():
  assert_same_training(run_distilled("pmap", 8), run_distilled("mesh", 1))


# --- the optimizer


def parameters():
  return {"student": {"backbone": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.ones(4)},
                      "head": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.ones(4)}}}


def updates(count=4, gradient=1.0, **options):
  """Parameter updates of `count` steps with a constant gradient: a list of trees."""
  config = small.config().optimizer
  config.update(dict(kind="sgd", learning_rate=0.1, weight_decay=0.0, clip_norm=1e9, warmup_steps=0,
                     final_fraction=1.0) | options)
  rule, params = optimizer(config, 100), parameters()
  state, out = rule.init(params), []
  for _ in range(count):
    change, state = rule.update(jax.tree.map(lambda p: jnp.full_like(p, gradient), params), state, params)
    out.append(jax.device_get(change["student"]))
  return out


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_backbone_is_frozen_and_then_slower(kind):
  found = updates(kind=kind, backbone_freeze_steps=2, backbone_factor=0.1, weight_decay=0.01)
  for n, change in enumerate(found):
    share = 0.0 if n < 2 else 0.1
    assert np.abs(change["head"]["kernel"]).min() > 0
    for name in ("kernel", "bias"):
      np.testing.assert_allclose(change["backbone"][name], share * change["head"][name], rtol=1e-5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_weight_decay_is_on_kernels_only(kind):
  change = updates(1, gradient=0.0, kind=kind, weight_decay=0.5)[0]["head"]
  np.testing.assert_allclose(change["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-4)
  np.testing.assert_array_equal(change["bias"], 0)


def test_momentum_and_clipping():
  found = updates(3)
  for change, factor in zip(found, (1.0, 1.9, 2.71), strict=True):
    np.testing.assert_allclose(change["head"]["bias"], -0.1 * factor, rtol=1e-5)
  norm = np.sqrt(32.0)  # Of a gradient of ones for 32 parameters.
  np.testing.assert_allclose(updates(1, clip_norm=2.0)[0]["head"]["bias"], -0.1 * 2 / norm, rtol=1e-5)


def test_schedule_warms_up_and_falls_along_a_cosine():
  config = small.config().optimizer
  config.update(learning_rate=0.4, warmup_steps=10, final_fraction=0.1)
  rate = schedule(config, 110)
  found = [float(rate(n)) for n in (0, 5, 10, 60, 110)]
  np.testing.assert_allclose(found, [0, 0.2, 0.4, 0.4 * (0.1 + 0.9 / 2), 0.04], rtol=1e-5)


def test_unknown_optimizer_is_refused():
  with pytest.raises(UserError, match="'lion', expected 'adamw' or 'sgd'"):
    updates(1, kind="lion")
