"""The one training step: (state, batch, teacher) -> (state, metrics), pure, the same for every layout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn
from jax import lax

from input_pipeline.errors import UserError
from siamdff_jax import losses
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.training.gradients import accumulated, axis_size, by_virtual_shard
from siamdff_jax.training.state import TrainState


def network_inputs(batch: dict, prior_channel: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
  """uint8 crops -> the network's (template, template_wh, search), with the target prior when it is asked for."""
  images = {}
  for name in ("template", "search"):
    images[name] = batch[name].astype(jnp.float32) / 255.0
  if prior_channel:
    side = batch["template"].shape[1]
    half = batch["template_wh"] / 2
    centred = jnp.concatenate([side / 2 - half, side / 2 + half], -1)
    boxes = {"template": centred, "search": batch["search_box_ltrb"]}
    images = {name: jnp.concatenate([x, _soft_box(boxes[name], x.shape[1])], -1) for name, x in images.items()}
  return images["template"], batch["template_wh"], images["search"]


def _soft_box(box_ltrb: jax.Array, side: int) -> jax.Array:
  """A Gaussian over the box, half its sides as deviations: [B, 4] -> [B, side, side, 1]; zero for an empty box."""
  pixel = jnp.arange(side) + 0.5
  centre, half = (box_ltrb[:, :2] + box_ltrb[:, 2:]) / 2, (box_ltrb[:, 2:] - box_ltrb[:, :2]) / 2
  profile = jnp.exp(-0.5 * ((pixel - centre[..., None]) / jnp.maximum(half, 0.5)[..., None]) ** 2)  # [B, 2, side]
  mask = profile[:, 1, :, None] * profile[:, 0, None, :]
  return jnp.where((half.min(-1) > 0)[:, None, None], mask, 0.0)[..., None]


def initial_state(model: SiamDFF, distiller: nn.Module | None, optimizer: optax.GradientTransformation, seed: int,
                  teacher: tuple[SiamDFF, Any] | None = None) -> TrainState:
  """The state before the first step; a function of the seed alone."""
  channels = 2 if model.prior_channel else 1
  template = jnp.zeros((1, model.template_side, model.template_side, channels))
  search = jnp.zeros((1, model.search_side, model.search_side, channels))
  wh, box, present = jnp.full((1, 2), 16.0), jnp.array([[48.0, 48.0, 64.0, 64.0]]), jnp.ones((1,))
  student_key, distiller_key = jax.random.split(jax.random.key(seed))

  # Two programs, so that the compiled one of the student serves with and without a distiller.
  variables = jax.jit(model.init)(student_key, template, wh, search)
  params = {"student": variables["params"], "distiller": {}}
  if distiller is not None:
    params["distiller"] = _initial_distiller(
        distiller, distiller_key, (model, variables), teacher, template, wh, search, box, present)
  zero = lambda: jnp.zeros((), jnp.int32)
  return TrainState(step=zero(), params=params, batch_stats=variables.get("batch_stats", {}),
                    opt_state=jax.jit(optimizer.init)(params), ema=jax.tree.map(jnp.copy, params["student"]),
                    bad_steps=zero())


def _initial_distiller(distiller, key, student, teacher, template, wh, search, box, present):
  """The distiller's parameters, from what the two networks put out for blank crops."""

  @jax.jit
  def init(student_variables, teacher_variables):
    outputs = []
    for model, variables in ((student[0], student_variables), (teacher[0], teacher_variables)):
      channels = lambda x, m=model: jnp.zeros((*x.shape[:3], 2 if m.prior_channel else 1))
      outputs.append(model.apply(variables, channels(template), wh, channels(search)))
    return distiller.init(key, *outputs, wh, box, present).get("params", {})

  return init(student[1], teacher[1])


def make_step(model: SiamDFF, optimizer: optax.GradientTransformation, config: ml_collections.ConfigDict, *,
              axis_name: str | None = None, distiller: nn.Module | None = None, teacher: SiamDFF | None = None
              ) -> Callable[[TrainState, dict, Any], tuple[TrainState, dict]]:
  """Builds the step.

  Args:
    model: the student (or the teacher, when the teacher is what is trained); with virtual shards built without an
      axis name (`Layout.norm_axis`).
    optimizer: from `state.optimizer`.
    config: the whole config.
    axis_name: the mapped axis that the batch is split over, or None where the step sees the global batch.
    distiller, teacher: both or neither.

  Returns:
    `step(state, batch, teacher_variables)`. The teacher's variables are an argument, not a closure: as constants
    they would be compiled in.

  Raises:
    UserError: accumulation together with virtual shards.
    ValueError: virtual shards with a model whose batch statistics are averaged over devices.
  """
  shards, rounds = config.train.virtual_shards, config.train.accumulate
  if shards and rounds > 1:
    raise UserError(f"--config.train.accumulate={rounds} cannot be combined with --config.train.virtual_shards={shards}"
                    ", which takes the batch in parts already; set one of them only")
  if shards and model.axis_name:
    raise ValueError("with virtual shards the model must be built with Layout.norm_axis, which is None")
  grad_fn = jax.grad(_loss_function(model, config, distiller, teacher), has_aux=True)

  def gradients(state, batch, teacher_variables):
    counts = losses.label_counts(batch, model.response_side, model.search_side, axis_name)
    # Of the global batch, shared equally by the parts that gradients and metrics are averaged over.
    parts = shards or rounds * axis_size(axis_name)
    counts = jax.tree.map(lambda count: count / parts, counts)
    way, number = (by_virtual_shard, shards) if shards else (accumulated, rounds)
    return way(grad_fn, number, axis_name, state, batch, counts, teacher_variables)

  def step(state, batch, teacher_variables=None):
    grads, metrics, batch_stats = gradients(state, batch, teacher_variables)
    metrics["grad_norm"] = optax.global_norm(grads)

    def update():
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      decay = jnp.minimum(config.train.ema_decay, (1.0 + state.step) / (10.0 + state.step))
      ema = jax.tree.map(lambda e, p: e * decay + p * (1 - decay), state.ema, params["student"])
      return TrainState(state.step + 1, params, batch_stats, opt_state, ema, jnp.zeros_like(state.bad_steps))

    def skip():
      return state.replace(step=state.step + 1, bad_steps=state.bad_steps + 1)

    # A step with a non-finite gradient changes nothing but the counters; the loop stops after too many in a row.
    new = lax.cond(jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(metrics["loss"]), update, skip)
    return new, metrics | {"bad_steps": new.bad_steps}

  return step


def _loss_function(model: SiamDFF, config, distiller: nn.Module | None, teacher: SiamDFF | None) -> Callable:
  """(params, batch_stats, batch, counts, teacher_variables) -> the total, and (metrics, new batch_stats)."""

  def loss_fn(params, batch_stats, batch, counts, teacher_variables):
    variables = {"params": params["student"], "batch_stats": batch_stats}
    inputs = network_inputs(batch, model.prior_channel)
    out, updates = model.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    metrics = losses.task_losses(out, batch, counts, config.loss, model.search_side)
    if distiller is not None:
      seen = teacher.apply(teacher_variables, *network_inputs(batch, teacher.prior_channel))
      terms = distiller.apply({"params": params["distiller"]}, out, seen, batch["template_wh"],
                              batch["search_box_ltrb"], batch["present"])
      metrics |= {f"loss/distill_{name}": config.distiller.weight * term for name, term in terms.items()}
    total = sum(value for name, value in metrics.items() if name.startswith("loss/"))
    return total, (metrics | {"loss": total}, updates.get("batch_stats", {}))

  return loss_fn
