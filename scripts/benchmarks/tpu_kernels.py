"""Where the kernels of a program compiled for a TPU come from, and which of them the compiler spends its time on."""

import collections
import pathlib
import re
from collections.abc import Iterator

from benchmarks import hlo

_SHOWN = 25
_FILE = re.compile(r"(\d{19})-(.+?)-\d+-original\.txt")  # 1796082449850026876-fusion.31-00-original.txt


def by_module(module: hlo.Module, clock: float) -> list[dict]:
  """Rows that say where the kernels come from, most kernels first.

  The network's are named by module, two levels deep; the others by the file and function that they were written in. A
  fusion counts where its last operation comes from.
  """
  groups: dict[str, list[tuple[hlo.Instruction, int]]] = collections.defaultdict(list)
  for kernel, times in module.kernels():
    groups[part(module, kernel)].append((kernel, times))
  found = []
  for name, kernels in groups.items():
    cycles = sum((kernel.cycles or 0) * times for kernel, times in kernels)
    without = collections.Counter(kernel.operation for kernel, _ in kernels if kernel.cycles is None)
    found.append({
        "module": name, "kernels": sum(times for _, times in kernels),
        "fusions": sum(kernel.operation == "fusion" for kernel, _ in kernels),
        "of the gradient": sum(times for kernel, times in kernels if "transpose(" in kernel.op_name),
        "in loops": sum(times for _, times in kernels if times > 1), "estimate (ms)": 1e3 * cycles / clock,
        "not estimated": ", ".join(f"{count} {operation}" for operation, count in without.most_common())})
  return sorted(found, key=lambda row: -row["kernels"])


def part(module: hlo.Module, kernel: hlo.Instruction) -> str:
  """Where a kernel comes from: a row's name in `by_module`."""
  path = module_path(kernel.op_name)
  return path if "/" in path else module.source(kernel, "siamdff_jax/") or path or "compiler's own"


def module_path(op_name: str) -> str:
  """"SiamDFF/sten_2/search_merge" of "jit(step)/transpose(jvp(SiamDFF))/SiamDFF.track/sten_2/search_merge/conv/add"."""
  parts = op_name.split("/")
  for i, part in enumerate(parts):
    root = re.fullmatch(r"(?:\w+\()*([A-Z]\w+|teacher)\)*", part)
    if root:  # A Flax module that is called on its own. Methods are no modules, nor is the last part, an operation.
      inner = [p for p in parts[i + 1:-1] if re.fullmatch(r"[a-z]\w*", p)]
      return "/".join([root[1], *inner[:2]])
  return ""


def dump_flags(folder: str) -> dict[str, str]:
  """The environment in which libtpu writes what it makes of each kernel into `folder`, some hundred MB for a network.

  A file's name begins with the time when the compiler began with that kernel. It takes nearly twice as long then.
  """
  return {"LIBTPU_INIT_ARGS": f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_pass_label_regex=original"}


def slow_to_compile(folder: str, ended: float | None) -> Iterator[dict]:
  """A row per kernel, longest first; what is beyond the first 25 is one row.

  Args:
    folder: that of `dump_flags`.
    ended: when the compiler was ended before it was done, in seconds since 1970; else None.
  """
  paths = sorted(pathlib.Path(folder).iterdir())
  begun = [(int(found[1]) / 1e9, found[2]) for found in (_FILE.fullmatch(path.name) for path in paths)
           if found and not found[2].startswith(("<", "TLP"))]  # The whole program and what is around it.
  ends = [start for start, _ in begun[1:]] + [ended or max(path.stat().st_mtime for path in paths)]
  seconds = collections.Counter({name: until - start for (start, name), until in zip(begun, ends, strict=True)})
  texts = [path for path in paths if path.name.endswith("-TLP-hlo.txt")]
  module = hlo.Module(texts[0].read_text()) if texts else None
  found = {instruction.name: instruction for instruction, _ in module.executed} if module else {}
  total = sum(seconds.values())
  for name, taken in seconds.most_common(_SHOWN):
    yield {"kernel": name, "compile (s)": taken, "share": taken / total,
           "part": part(module, found[name]) if name in found else "", "result": _short(found, name)}
  if rest := sum(taken for _, taken in seconds.most_common()[_SHOWN:]):
    yield {"kernel": f"{len(seconds) - _SHOWN} others", "compile (s)": rest, "share": rest / total, "part": "",
           "result": ""}


def _short(found: dict[str, hlo.Instruction], name: str) -> str:
  """The result's arrays without layouts."""
  return re.sub(r"\{[^}]*\}|/\*[^*]*\*/", "", found[name].shape)[:80] if name in found else ""
