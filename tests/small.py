"""The smallest network, config and batch of random pairs, for the tests of the network and of training."""

import jax
import ml_collections
import numpy as np

from configs import base
from siamdff_jax import distillation
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.models.build import build
from siamdff_jax.tracking import settings
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import initial_state, network_inputs

TEMPLATE_SIDE, SEARCH_SIDE = 63, 127
TEMPLATE_CELLS, SEARCH_CELLS, RESPONSE_CELLS = 7, 15, 9
PLAIN = dict(use_sten=False, use_dsfam=False, use_dcfam=False)  # Compiles in a third of the time.


def config(**model) -> ml_collections.ConfigDict:
  """configs/base.py at the smallest size; `model` overrides entries of config.model."""
  out = base.get_config()
  out.model.update(features=16, heads=2, tower_depth=1, template_side=TEMPLATE_SIDE, search_side=SEARCH_SIDE,
                   norm="group")
  out.model.backbone.update(blocks=(1, 1, 1, 1), widths=(8, 8, 8, 8), stem_kernel=3)
  out.model.update(model)
  out.optimizer.update(kind="sgd", learning_rate=0.05, warmup_steps=0)
  out.train.update(steps=10, batch_size=8)
  out.tracker = settings.PLAIN.to_dict()  # Tiles take longest to compile.
  return out


def inputs(seed: int, batch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(template, template_wh, search) for `SiamDFF`: noise with a blob in the middle."""
  rng = np.random.default_rng(seed)

  def image(side):
    axis = np.arange(side) - (side - 1) / 2
    blob = np.exp(-(axis[:, None] ** 2 + axis**2) / 200)
    return np.clip(0.4 + 0.3 * blob + 0.1 * rng.normal(size=(batch, side, side)), 0, 1)[..., None].astype(np.float32)

  return image(TEMPLATE_SIDE), rng.uniform(12, 40, (batch, 2)).astype(np.float32), image(SEARCH_SIDE)


def batch(seed: int, size: int = 8) -> dict[str, np.ndarray]:
  """A training batch in the form of `input_pipeline.pipeline.example`; some of its pairs are negative."""
  rng = np.random.default_rng(seed)
  template, wh, search = inputs(seed, size)
  present = (np.arange(size) % 4 != 3).astype(np.float32)
  centre = rng.uniform(40, 87, (size, 2))
  box = np.concatenate([centre - wh / 2, centre + wh / 2], -1) * present[:, None]

  def pixels(image):
    return (255 * image).round().astype(np.uint8)

  return {"template": pixels(template), "search": pixels(search), "template_wh": wh,
          "search_box_ltrb": box.astype(np.float32), "present": present}


def random_params(module, *args, seed: int = 0, **options):
  """Random parameters for `module.init(key, *args, **options)`: nothing is compiled, and no leaf is zero.

  Kernels keep the size of what they are applied to; scales lie about 1, everything else about 0.
  """
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **options))["params"]
  rng = np.random.default_rng(seed)

  def leaf(path, x):
    noise = rng.normal(size=x.shape)
    if path[-1].key == "kernel":
      return np.asarray(noise / np.sqrt(np.prod(x.shape[:-1])), np.float32)
    return np.asarray(0.2 * noise + (path[-1].key == "scale"), np.float32)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def start_state(made: ml_collections.ConfigDict, distiller_params=None) -> TrainState:
  """A state with random parameters everywhere, as numpy; equal for every layout."""
  model = build(made.model)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs(0)))
  params = {"student": random_params(model, *inputs(0)), "distiller": distiller_params or {}}
  zero, rule = np.zeros((), np.int32), optimizer(made.optimizer, made.train.steps)
  stats = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes.get("batch_stats", {}))
  return TrainState(step=zero, params=params, opt_state=jax.device_get(rule.init(params)), ema=params["student"],
                    batch_stats=stats, bad_steps=zero)


def distillation_of(made: ml_collections.ConfigDict, teacher_config: ml_collections.ConfigDict):
  """(student, teacher, the teacher's variables, distiller, its parameters), all parameters random."""
  student, teacher, distiller = build(made.model), build(teacher_config.model), distillation.build(made.distiller)
  examples = batch(0)
  images = {m: network_inputs(examples, m.prior_channel) for m in (student, teacher)}
  outputs = [jax.eval_shape(lambda m=m: m.init_with_output(jax.random.key(0), *images[m])[0]) for m in images]
  features = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), outputs)
  params = random_params(
      distiller, *features, examples["template_wh"], examples["search_box_ltrb"], examples["present"])
  return student, teacher, {"params": random_params(teacher, *images[teacher])}, distiller, params


def write_checkpoint(workdir, made: ml_collections.ConfigDict | None = None) -> str:
  """A checkpoint in `workdir` as training writes it: the network of `made` (default `config()`), random weights."""
  made = made or config()
  model, rule = build(made.model), optimizer(made.optimizer, made.train.steps)
  shapes = jax.eval_shape(lambda: initial_state(model, None, rule, made.seed))
  rng = np.random.default_rng(made.seed)
  state = jax.tree.map(lambda x: jax.device_put((0.1 * rng.normal(size=x.shape)).astype(x.dtype)), shapes)
  with Checkpoints(str(workdir)) as saved:
    saved.save(state, made)
  return str(workdir)
