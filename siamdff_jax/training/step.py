"""The one training step: (state, batch, teacher) -> (state, metrics), pure, the same for every layout."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn
from jax import lax

from input_pipeline.errors import UserError
from input_pipeline.geometry import Array
from siamdff_jax import losses
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.training.gradients import Gradients, accumulated, axis_size, by_virtual_shard
from siamdff_jax.training.state import TrainState

# (state, batch, teacher_variables=None) -> the next state, metrics {name: float32 []}.
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def network_inputs(batch: Mapping[str, Array], prior_channel: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
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
    assert teacher is not None
    params["distiller"] = _initial_distiller(
        distiller, distiller_key, (model, variables), teacher, template, wh, search, box, present)
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats=variables.get("batch_stats", {}),
                    opt_state=jax.jit(optimizer.init)(params), ema=jax.tree.map(jnp.copy, params["student"]),
                    bad_steps=jnp.zeros((), jnp.int32))


def _initial_distiller(distiller: nn.Module, key: jax.Array, student: tuple[SiamDFF, Any],
                       teacher: tuple[SiamDFF, Any], template: jax.Array, wh: jax.Array, search: jax.Array,
                       box: jax.Array, present: jax.Array) -> Any:
  """The distiller's parameters, from what the two networks (with their variables) put out for blank crops."""

  def blank(like: jax.Array, model: SiamDFF) -> jax.Array:
    return jnp.zeros((*like.shape[:3], 2 if model.prior_channel else 1))

  @jax.jit
  def init(student_variables: Any, teacher_variables: Any) -> Any:
    outputs = []
    for model, variables in ((student[0], student_variables), (teacher[0], teacher_variables)):
      outputs.append(model.apply(variables, blank(template, model), wh, blank(search, model)))
    return distiller.init(key, *outputs, wh, box, present).get("params", {})

  return init(student[1], teacher[1])


def make_step(model: SiamDFF, optimizer: optax.GradientTransformation, config: ml_collections.ConfigDict, *,
              axis_name: str | None = None, distiller: nn.Module | None = None, teacher: SiamDFF | None = None
              ) -> Step:
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

  def gradients(state: TrainState, batch: dict[str, jax.Array], teacher_variables: Any) -> Gradients:
    counts = losses.label_counts(batch, model.response_side, model.search_side, axis_name)
    # Of the global batch, shared equally by the parts that gradients and metrics are averaged over.
    parts = shards or rounds * axis_size(axis_name)
    counts = jax.tree.map(lambda count: count / parts, counts)
    way, number = (by_virtual_shard, shards) if shards else (accumulated, rounds)
    return way(grad_fn, number, axis_name, state, batch, counts, teacher_variables)

  def step(state: TrainState, batch: dict[str, jax.Array], teacher_variables: Any = None
           ) -> tuple[TrainState, dict[str, jax.Array]]:
    grads, metrics, batch_stats = gradients(state, batch, teacher_variables)
    metrics["grad_norm"] = optax.global_norm(grads)

    def update() -> TrainState:
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      decay = jnp.minimum(config.train.ema_decay, (1.0 + state.step) / (10.0 + state.step))
      ema = jax.tree.map(lambda e, p: e * decay + p * (1 - decay), state.ema, params["student"])
      return TrainState(state.step + 1, params, batch_stats, opt_state, ema, jnp.zeros_like(state.bad_steps))

    def skip() -> TrainState:
      return state.replace(step=state.step + 1, bad_steps=state.bad_steps + 1)

    # A step with a non-finite gradient changes nothing but the counters; the loop stops after too many in a row.
    new = lax.cond(jnp.isfinite(metrics["grad_norm"]) & jnp.isfinite(metrics["loss"]), update, skip)
    return new, metrics | {"bad_steps": new.bad_steps}

  return step


def total_loss(terms: Mapping[str, jax.Array]) -> jax.Array:
  """What is minimised: the sum of the terms "loss/..."."""
  total = sum(value for name, value in terms.items() if name.startswith("loss/"))
  assert not isinstance(total, int)  # As of no term at all.
  return total


def _loss_function(model: SiamDFF, config: ml_collections.ConfigDict, distiller: nn.Module | None,
                   teacher: SiamDFF | None) -> Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Any]]]:
  """(params, batch_stats, batch, counts, teacher_variables) -> the total, and (metrics, new batch_stats)."""

  def loss_fn(params: Any, batch_stats: Any, batch: dict[str, jax.Array], counts: Any, teacher_variables: Any
              ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    variables = {"params": params["student"], "batch_stats": batch_stats}
    inputs = network_inputs(batch, model.prior_channel)
    out, updates = model.apply(variables, *inputs, train=True, mutable=["batch_stats"])
    metrics = losses.task_losses(out, batch, counts, config.loss, model.search_side)
    if distiller is not None:
      assert teacher is not None
      seen = teacher.apply(teacher_variables, *network_inputs(batch, teacher.prior_channel))
      terms: Any = distiller.apply({"params": params["distiller"]}, out, seen, batch["template_wh"],
                              batch["search_box_ltrb"], batch["present"])
      metrics |= {f"loss/distill_{name}": config.distiller.weight * term for name, term in terms.items()}
    total = total_loss(metrics)
    return total, (metrics | {"loss": total}, updates.get("batch_stats", {}))

  return loss_fn
