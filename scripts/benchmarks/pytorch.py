"""Our network against the same one in PyTorch: search pass, whole forward and training step, in turns in one process.

On a CPU each side has one thread: `rows` measures in a fresh process that pins itself (`os.sched_setaffinity`, Linux)
to one core before anything starts threads (XLA:CPU takes as many as the process may use cores), and PyTorch is told so
as well. On a GPU `rows` measures in the present process; start it with XLA_PYTHON_CLIENT_PREALLOCATE=false, or JAX
keeps three quarters of the memory.

The precision is the config's `model.dtype` there, on a CPU always float32: float32 means TF32 products for both on a
GPU, and bfloat16 is our `model.dtype` against PyTorch's autocast.

One GFLOP number serves all forms of a pass: XLA's count for our forward (a multiply-add as 2), and three times that
for the training step (forward, gradient for the activations, gradient for the weights). Rematerialisation is off.
"""

import concurrent.futures
import functools
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from tqdm import tqdm

from benchmarks import timing
from input_pipeline.errors import UserError
from siamdff_jax.models import summary
from siamdff_jax.models.build import build
from siamdff_jax.models.load import abstract_variables
from siamdff_jax.models.siamdff import SiamDFF
from siamdff_jax.training.state import TrainState, optimizer
from siamdff_jax.training.step import make_step, network_inputs

if TYPE_CHECKING:  # It need not be installed.
  import torch

PASSES = ("search", "forward", "training")  # The search pass has its template encoded before.
MODES = {"cpu": ("eager", "channels_last", "compile"),
         "cuda": ("eager", "channels_last", "compile", "compile_graphs")}  # "graphs": mode="reduce-overhead".
_BATCH = {"cpu": {"search": 1, "forward": 1, "training": 2}, "cuda": {"search": 1, "forward": 32, "training": 32}}
_HEAD = ("class_logit", "quality_logit", "ltrb", "presence_logit")


def rows(config: ml_collections.ConfigDict, batch: int | None = None, repeats: int = 5,
         passes: Sequence[str] = PASSES) -> Iterator[dict]:
  """`compare`, the rows of a pass as soon as it is measured; on a CPU in a process of its own with one core.

  With one core PyTorch compiles the training step for many minutes; the next run finds the result in its cache on disk.
  """
  _require_torch()
  if jax.default_backend() != "cpu":
    for name in passes:
      yield from compare(config, batch, repeats, passes=(name,))
    return
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context, initializer=_pin_to_one_core) as pool:
    for name in passes:
      yield from pool.submit(compare, config, batch, repeats, passes=(name,)).result()


def compare(config: ml_collections.ConfigDict, batch: int | None = None, repeats: int = 5,
            modes: Sequence[str] | None = None, passes: Sequence[str] = PASSES) -> list[dict]:
  """Measures on JAX's default backend, in this process.

  Args:
    config: the whole config; of a network that `pytorch_tracker.SiamDFF` takes.
    batch: pairs per call; None takes 1 (2 in training) on a CPU; on a GPU 1 for the search pass and 32 elsewhere.
    repeats: rounds that count.
    modes: PyTorch's forms, of `MODES`; None takes all of the device's.
    passes: of `PASSES`.

  Returns:
    A row per pass and form: "pass", "precision", "batch", "form", "ms" (median), "quartiles_ms", "gflop"
    (per call), "gflop_per_s", "speed_over_best_torch" (2 is twice as fast), "note" (how far the outputs are from ours,
    or why the form did not run: then its numbers are None) and all single "times_ms".

  Raises:
    UserError: PyTorch is missing, sees no GPU where JAX has one, or the config is not comparable.
  """
  torch, device = _require_torch(), _torch_device()
  if device == "cpu":
    torch.set_num_threads(1)
  else:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
  config = ml_collections.ConfigDict(config.to_dict())
  config.model.backbone.remat = False
  if device == "cpu":
    config.model.dtype = "float32"
  model = build(config.model)
  variables, out = random_variables(model), []
  for name in passes:
    pairs = random_batch(model, batch or _BATCH[device][name])
    torch._dynamo.reset()  # The limit of compiled versions is per function, and all passes share functions.
    out += _measure(name, config, model, variables, pairs, modes or MODES[device], repeats, device)
  return out


def not_comparable(model: ml_collections.ConfigDict) -> str:
  """Why a `config.model` has no like in PyTorch, or ""."""
  switches = ("use_sten", "use_intensity", "use_dsfam", "use_dcfam")
  if (model.backbone.kind == "resnet" and model.norm in ("batch", "group") and not model.prior_channel
      and all(model[switch] for switch in switches)):
    return ""
  return ("the PyTorch comparison is written for a ResNet with norm 'batch' or 'group', without prior_channel and with "
          f"{', '.join(switches)}")


def random_variables(model: SiamDFF, seed: int = 0) -> dict[str, Any]:
  """Float32 numpy variables: kernels that keep the size of their input, everything else as at initialisation."""
  rng = np.random.default_rng(seed)

  def leaf(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> np.ndarray:
    if path[-1].key == "kernel":
      return (rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))).astype(np.float32)
    return np.full(x.shape, path[-1].key in ("scale", "var"), np.float32)

  return jax.tree_util.tree_map_with_path(leaf, dict(abstract_variables(model)))


def random_batch(model: SiamDFF, size: int, seed: int = 0) -> dict[str, np.ndarray]:
  """A training batch of noise, in the form of `input_pipeline.pipeline.example`; every fourth pair is negative."""
  rng = np.random.default_rng(seed)

  def crop(side: int) -> np.ndarray:
    return rng.integers(0, 256, (size, side, side, 1), np.uint8)

  present = (np.arange(size) % 4 != 3).astype(np.float32)
  wh = rng.uniform(10, 40, (size, 2)).astype(np.float32)
  centre = model.search_side / 2 + rng.uniform(-20, 20, (size, 2))
  box = np.concatenate([centre - wh / 2, centre + wh / 2], -1) * present[:, None]
  return {"template": crop(model.template_side), "search": crop(model.search_side), "template_wh": wh,
          "search_box_ltrb": box.astype(np.float32), "present": present}


def torch_batch(batch: Mapping[str, np.ndarray], device: str) -> dict[str, "torch.Tensor"]:
  """The batch as tensors, crops [B, 1, S, S]."""
  import torch

  return {name: torch.tensor(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value, device=device)
          for name, value in batch.items()}


def _require_torch() -> ModuleType:
  if importlib.util.find_spec("torch") is None:
    raise UserError("the comparison needs PyTorch: pip install -r requirements-bench.txt")
  import torch

  return torch


def _torch_device() -> str:
  import torch

  backend = jax.default_backend()
  if backend == "cpu":
    if not hasattr(os, "sched_setaffinity"):
      raise UserError("the comparison on a CPU gives each side one core, which only Linux can enforce")
    return "cpu"
  if backend != "gpu" or not torch.cuda.is_available():
    raise UserError(f"JAX runs on {backend}, where this PyTorch ({torch.__version__}) finds no device; compare on a "
                    "CPU with JAX_PLATFORMS=cpu")
  return "cuda"


def _pin_to_one_core() -> None:
  """Leaves one core, the last that it may use, to this process and to every thread that it has or starts."""
  core = max(os.sched_getaffinity(0))
  for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {core})


def _measure(name: str, config: ml_collections.ConfigDict, model: SiamDFF, variables: Mapping[str, Any],
             batch: Mapping[str, np.ndarray], modes: Sequence[str], repeats: int, device: str) -> list[dict]:
  """The rows of one pass at one precision."""
  calls, notes = {}, {}
  calls["jax"], gflop = _jax_call(name, config, model, variables, batch)
  reference = {key: np.asarray(value, np.float32) for key, value in calls["jax"]().items()}
  notes["jax"] = f"process may use {len(os.sched_getaffinity(0))} core(s)" if device == "cpu" else ""
  for mode in tqdm(modes, desc=f"compiling torch, {name} {config.model.dtype}", leave=False):
    form = f"torch {mode}"
    try:
      call = _torch_call(name, mode, config, variables, batch, device)
      result = call()
    except Exception as error:  # Whatever the compiler of the day raises; the row says it.
      if not mode.startswith("compile"):
        raise
      notes[form] = f"failed: {type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:120]}"
      continue
    calls[form] = call
    notes[form] = f"within {_distance(result, reference):.0e} of jax"
  times = timing.interleaved(calls, repeats)
  medians = {form: 1e3 * timing.median(times[form]) for form in times}
  best = min((value for form, value in medians.items() if form != "jax"), default=None)
  found = []
  for form, note in notes.items():
    ms = medians.get(form)
    found.append({
        "pass": name, "precision": config.model.dtype, "batch": len(batch["present"]), "form": form, "ms": ms,
        "quartiles_ms": timing.spread(times[form]) if ms else None, "gflop": gflop,
        "gflop_per_s": 1e3 * gflop / ms if ms else None, "speed_over_best_torch": best / ms if ms and best else None,
        "note": note, "times_ms": [1e3 * seconds for seconds in times.get(form, [])]})
  return found


def _distance(result: Mapping[str, "torch.Tensor"], reference: Mapping[str, np.ndarray]) -> float:
  """The largest difference of any output, as a share of that output's largest value."""
  arrays = {key: value.float().cpu().numpy() for key, value in result.items()}
  return max(float(np.abs(arrays[key] - value).max() / max(np.abs(value).max(), 1e-9))
             for key, value in reference.items())


def _head(out: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Of all that the network gives, what both sides compare."""
  return {key: out[key] for key in _HEAD}


def _jax_call(name: str, config: ml_collections.ConfigDict, model: SiamDFF, variables: Mapping[str, Any],
              batch: Mapping[str, np.ndarray]) -> tuple[Callable[[], dict[str, jax.Array]], float]:
  """Our side of a pass, compiled, and the GFLOP of a call."""
  template, wh, search = network_inputs(jax.tree.map(jnp.asarray, batch), model.prior_channel)
  on_device = jax.device_put(variables)
  if name == "search":
    encode = jax.jit(functools.partial(model.apply, method="encode_template"))
    arguments = (on_device, encode(on_device, template, wh), search)
    forward = jax.jit(lambda v, encoded, x: _head(model.apply(v, encoded, x, method="track")))
  else:
    arguments = (on_device, template, wh, search)
    forward = jax.jit(lambda v, *x: _head(model.apply(v, *x)))
  gflop = summary.flops(forward, *arguments) / 1e9
  if name != "training":
    compiled = forward.lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments)), gflop
  return _jax_training(config, model, variables, batch), 3 * gflop


def _jax_training(config: ml_collections.ConfigDict, model: SiamDFF, variables: Mapping[str, Any],
                  batch: Mapping[str, np.ndarray]) -> Callable[[], dict[str, jax.Array]]:
  rule = optimizer(config.optimizer, config.train.steps)

  def copied(tree: Any) -> Any:  # The state is donated.
    return jax.tree.map(jnp.array, tree)

  params = copied({"student": variables["params"], "distiller": {}})
  state = TrainState(step=jnp.zeros((), jnp.int32), params=params, batch_stats=copied(variables.get("batch_stats", {})),
                     opt_state=copied(rule.init(params)), ema=copied(variables["params"]),
                     bad_steps=jnp.zeros((), jnp.int32))
  placed = copied(batch)
  step = jax.jit(make_step(model, rule, config), donate_argnums=0).lower(state, placed).compile()

  def call() -> dict[str, jax.Array]:
    nonlocal state
    state, metrics = step(state, placed)
    jax.block_until_ready((state, metrics))
    return {key: metrics[key] for key in ("loss", "grad_norm")}

  return call


def _torch_call(name: str, mode: str, config: ml_collections.ConfigDict, variables: Mapping[str, Any],
                batch: Mapping[str, np.ndarray], device: str) -> Callable[[], dict[str, "torch.Tensor"]]:
  """PyTorch's side of a pass in one form; nothing runs before the first call."""
  import torch

  from benchmarks import pytorch_tracker, pytorch_training, pytorch_weights

  compilers = {"compile": torch.compile, "compile_graphs": functools.partial(torch.compile, mode="reduce-overhead")}
  wrap = compilers.get(mode, lambda function: function)
  network = pytorch_tracker.SiamDFF(config.model)
  pytorch_weights.load_variables(network, variables, config.model.backbone.bottleneck)
  layout = torch.channels_last if mode == "channels_last" else torch.contiguous_format
  network = network.to(device, memory_format=layout)
  tensors = torch_batch(batch, device)
  tensors |= {key: tensors[key].to(memory_format=layout) for key in ("template", "search")}
  autocast = config.model.dtype == "bfloat16"

  if name == "training":
    function = functools.partial(pytorch_training.TrainingStep(network, config, wrap, autocast), tensors)
  else:
    function = _torch_forward(name, network.eval(), wrap, tensors, device, autocast)

  def call() -> dict[str, torch.Tensor]:
    out = function()
    if device == "cuda":
      torch.cuda.synchronize()
    return out

  return call


def _torch_forward(name: str, network: "torch.nn.Module", wrap: Callable[[Callable], Callable],
                   tensors: Mapping[str, "torch.Tensor"], device: str, autocast: bool
                   ) -> Callable[[], dict[str, "torch.Tensor"]]:
  import torch

  template, search = (tensors[key].float() / 255 for key in ("template", "search"))
  run = wrap(network.track if name == "search" else network)
  encoded = None

  def function() -> dict[str, torch.Tensor]:
    nonlocal encoded
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
      if name != "search":
        return run(template, tensors["template_wh"], search)
      if encoded is None:
        encoded = network.encode_template(template, tensors["template_wh"])
      return run(encoded, search)

  return function
