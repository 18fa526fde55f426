"""Where a training step's time goes on the device: a trace of some steps, summed up as text.

JAX's own reader (`jax.profiler.ProfileData`) opens the trace. On a GPU a kernel is what a stream ran, copies included;
on a TPU and a CPU an operation of the compiled program (a CPU runs several at once and has no kernels: there the tables
only show that the command works). Its part of the network is found by its operation's name in the compiled program.
"""

import collections
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from benchmarks.cases import Case
from benchmarks.step import BareStep
from input_pipeline.errors import UserError

_STEPS, _SHOWN = 5, 25
OTHER = "optimizer, average and the rest"


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One run of one kernel.

  Attributes:
    name: the kernel's own.
    operation: its operation's in the compiled program, or "" where the trace does not tell.
    start, end: nanoseconds.
    own: nanoseconds without those of the kernels within it (a loop has its body's).
  """

  name: str
  operation: str
  start: float
  end: float
  own: float


def tables(case: Case, batch: int, steps: int = _STEPS) -> Iterator[tuple[str, Iterable[dict]]]:
  """(title, rows): the whole, by part of the network, by kind of kernel, the longest single kernels.

  Args:
    case: its batch size is replaced. The layout is to be one whose compiled step can be read ("mesh").
    batch: pairs.
    steps: so many are traced.
  """
  bare = BareStep(case.with_batch(batch))
  jax.block_until_ready(bare.run(2))
  kernels = traced(lambda: bare.run(steps))
  parts = {_plain(name): part_of(path) for name, path in operations(bare.hlo()).items()}

  def part(kernel: Kernel) -> str:
    return parts.get(_plain(kernel.operation or kernel.name), "unknown")

  title = f"{case.name}, {batch} pairs, per step of {steps} traced"
  yield title, [summary(kernels, steps)]
  yield "By part of the network", grouped(kernels, steps, {"part": part})
  yield "By kind", grouped(kernels, steps, {"kind": lambda kernel: re.sub(r"[._]\d+", "", kernel.name)[:80]})
  yield "Longest", grouped(kernels, steps, {"kernel": lambda kernel: kernel.name[:80], "part": part})


def traced(call: Callable[[], Any]) -> list[Kernel]:
  """The kernels that `call` runs on the first device; what it returns is waited for."""
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      jax.block_until_ready(call())
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    return read(jax.profiler.ProfileData.from_file(str(path)))


def read(profile: jax.profiler.ProfileData) -> list[Kernel]:
  """The first device's kernels, by their start.

  Raises:
    UserError: there are none.
  """
  planes = {plane.name: plane for plane in profile.planes}
  device = min((name for name in planes if re.match(r"/device:(GPU|TPU):", name)), default="/host:CPU")
  lines = {"G": "Stream #", "T": "XLA Ops"}.get(device.removeprefix("/device:")[0], "")
  found = []
  for line in planes[device].lines if device in planes else ():
    if not line.name.startswith(lines):
      continue
    events = []
    for event in line.events:
      operation = dict(event.stats).get("hlo_op", "")
      if lines or operation:  # On a CPU the lines are threads, which do other things as well.
        events.append((event.start_ns, event.start_ns + event.duration_ns, event.name, operation))
    found += _nested(events)
  if not found:
    raise UserError("the trace has no kernels: the profiler does not see this device")
  return sorted(found, key=lambda kernel: kernel.start)


def _nested(events: list[tuple[float, float, str, str]]) -> Iterator[Kernel]:
  """The kernels of one line, (start, end, name, operation) each, where some lie within others."""
  events = sorted(events, key=lambda event: (event[0], -event[1]))
  inner, around = [0.0] * len(events), []
  for number, (start, end, _, _) in enumerate(events):
    while around and events[around[-1]][1] <= start:
      around.pop()
    if around:
      inner[around[-1]] += end - start
    around.append(number)
  for (start, end, name, operation), within in zip(events, inner, strict=True):
    yield Kernel(name, operation, start, end, end - start - within)


def summary(kernels: list[Kernel], steps: int) -> dict:
  """From the first kernel's start to the last one's end; "idle" is the share in which no kernel ran."""
  wall, busy, until = max(kernel.end for kernel in kernels) - kernels[0].start, 0.0, 0.0
  for kernel in kernels:
    busy += max(kernel.end - max(kernel.start, until), 0.0)
    until = max(until, kernel.end)
  return {"step (ms)": wall / steps / 1e6, "kernels": len(kernels) / steps, "busy (ms)": busy / steps / 1e6,
          "idle": 1 - busy / wall, "mean kernel (us)": sum(kernel.own for kernel in kernels) / len(kernels) / 1e3}


def grouped(kernels: Iterable[Kernel], steps: int, keys: dict[str, Callable[[Kernel], str]]) -> list[dict]:
  """A row per value of `keys`, most time first; what is beyond the first 25 is one row."""
  times: dict[tuple[str, ...], list[float]] = collections.defaultdict(list)
  for kernel in kernels:
    times[tuple(key(kernel) for key in keys.values())].append(kernel.own)
  ordered = sorted(times.items(), key=lambda item: -sum(item[1]))
  if len(ordered) > _SHOWN:
    rest = [own for _, group in ordered[_SHOWN:] for own in group]
    ordered = [*ordered[:_SHOWN], ((f"{len(ordered) - _SHOWN} others", *[""] * (len(keys) - 1)), rest)]
  total = sum(own for _, group in ordered for own in group)
  return [{**dict(zip(keys, names, strict=True)), "kernels": len(group) / steps, "ms": sum(group) / steps / 1e6,
           "share": sum(group) / total} for names, group in ordered]


def operations(hlo: str) -> dict[str, str]:
  """{operation: where in our code it comes from} of a compiled program's text, from its metadata's "op_name"."""
  return dict(re.findall(r'^\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"', hlo, re.MULTILINE))


def part_of(path: str) -> str:
  """The part of the step that an "op_name" belongs to.

  "jit(step)/transpose(jvp(SiamDFF))/SiamDFF.track/head/..." is "head, gradient": a network's module, another one such
  as a distiller, or the losses, forward or gradient; or `OTHER`. A teacher's modules count with the student's.
  """
  pieces = path.split("/")
  for number, piece in enumerate(pieces):
    module = re.search(r"\b[A-Z]\w*", piece)
    if not module and "jvp(" not in piece:
      continue
    name = module[0] if module else "losses"
    if name == "SiamDFF":
      inner = re.compile(r"SiamDFF\.|(while|body|cond|closed_call|checkpoint|rematted_computation|jit\(.*)$")
      name = next((piece for piece in pieces[number + 1:-1] if not inner.match(piece)), name)
    return f"{name}, {'gradient' if piece.startswith('transpose(') else 'forward'}"
  return OTHER


def _plain(name: str) -> str:
  """An operation's name as kernels are called by it: "loop_fusion.3" is the kernel loop_fusion_3."""
  return re.sub(r"\W", "_", name)
