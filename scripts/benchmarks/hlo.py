"""A program that XLA compiled for a TPU, read from its text: kernels, their estimated cycles, collectives, padding.

What runs is the entry computation and, from there, the bodies of loops (as often as they turn), called computations
and the longest branch of conditionals. What is inside of a fusion is one kernel.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
               "collective-broadcast")
# They move no data, or something else's kernels run in them. (A copy that starts early runs beside the kernels.)
_FREE = frozenset((
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "opt-barrier", "partition-id",
    "replica-id", "while", "conditional", "call", "add-dependency", "domain", "copy-start", "slice-start",
    "dynamic-slice-start", "async-start", "async-update"))
_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s16": 16, "u16": 16, "f32": 32,
         "s32": 32, "u32": 32, "f64": 64, "s64": 64, "u64": 64}
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([0-9,]*)\](?:\{([0-9,]*)(?::((?:[^{}])*))?\})?")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?(\S+) = (.*)")
_OPERATION = re.compile(r"\s*([a-z0-9-]+)\(")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: unique in the module.
    shape: of the result, with layouts.
    operation: "fusion", "copy", ...
    rest: operands and attributes.
    root: whether it is its computation's result.
  """

  name: str
  shape: str
  operation: str
  rest: str
  root: bool

  @property
  def cycles(self) -> int | None:
    """The compiler's estimate of one run; None where it has none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
    return int(found[1]) if found else None

  @property
  def op_name(self) -> str:
    """Of the JAX operation that it comes from, "jit(f)/SiamDFF/head/add"; "" where the compiler made it up."""
    found = re.search(r'op_name="([^"]*)"', self.rest)
    return found[1] if found else ""

  @property
  def frame(self) -> int:
    """Number of its stack frame, 0 where there is none."""
    found = re.search(r"stack_frame_id=(\d+)", self.rest)
    return int(found[1]) if found else 0

  def called(self, attribute: str) -> list[str]:
    """Names of the computations in an attribute such as body=%name or branch_computations={%a, %b}."""
    found = re.search(rf"\b{attribute}=(?:\{{([^}}]*)\}}|(%?[\w.\-]+))", self.rest)
    return [name.strip().lstrip("%") for name in (found[1] or found[2]).split(",")] if found else []

  @property
  def is_kernel(self) -> bool:
    """Whether it keeps the vector or matrix units busy; single numbers are the scalar unit's, beside them."""
    if self.operation in _FREE or self.operation.endswith("-done") or '"AllocateBuffer"' in self.rest:
      return False
    return self.operation == "fusion" or any(dims.strip("1,") for _, dims, _, _ in _ARRAY.findall(self.shape))

  @property
  def collective(self) -> str | None:
    """Which of `COLLECTIVES` it is or starts."""
    kind = self.operation.removesuffix("-start")
    return kind if kind in COLLECTIVES else None


def _instruction(line: str) -> Instruction | None:
  found = _INSTRUCTION.match(line)
  if not found:
    return None
  end = _end_of_shape(found[2])
  operation = _OPERATION.match(found[2], end)
  if not operation:
    return None
  return Instruction(found[1].lstrip("%"), found[2][:end], operation[1], found[2][operation.end():],
                     line.lstrip().startswith("ROOT "))


def _end_of_shape(text: str) -> int:
  """A tuple's shape ends at its closing bracket, an array's at the first space."""
  if not text.startswith("("):
    return text.find(" ")
  depth = 0
  for i, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return i + 1
  return len(text)


class Module:
  """A compiled program.

  Attributes:
    computations: the instructions of each, by its name.
    unknown_loops: how many loops' numbers of turns could not be read; they count as one turn.
  """

  def __init__(self, text: str):
    """`text`: `compiled.as_text()`."""
    self.computations: dict[str, list[Instruction]] = {}
    self.unknown_loops = 0
    self._entry, self._frames = "", _frames(text)
    current: list[Instruction] = []
    for line in text.splitlines():
      if line.endswith("{") and (header := re.match(r"(ENTRY )?%?([^\s(]+) \(", line)):
        current = self.computations.setdefault(header[2], [])
        self._entry = header[2] if header[1] else self._entry
      elif found := _instruction(line):
        current.append(found)
    self.executed = list(self._run(self._entry, 1))  # (instruction, how often it runs)

  def _run(self, name: str, times: int) -> Iterator[tuple[Instruction, int]]:
    for instruction in self.computations[name]:
      yield instruction, times
      if instruction.operation == "while":
        turns = self._turns(instruction.called("condition")[0])
        yield from self._run(instruction.called("body")[0], times * turns)
      elif instruction.operation == "conditional":
        branches = instruction.called("branch_computations") or [
            *instruction.called("true_computation"), *instruction.called("false_computation")]
        yield from max((list(self._run(branch, times)) for branch in branches), key=_total_cycles)
      elif instruction.operation in ("call", "async-start"):
        for called in instruction.called("to_apply") or instruction.called("calls"):
          yield from self._run(called, times)

  def _turns(self, condition: str) -> int:
    """Of a loop that counts from 0 to a constant; that is what `lax.scan` and `lax.map` are."""
    instructions = list(self.computations[condition])
    for fusion in [i for i in instructions if i.operation == "fusion"]:
      instructions += self.computations[fusion.called("calls")[0]]
    bounds = [re.match(r"(\d+)\)", i.rest) for i in instructions if i.operation == "constant"]
    numbers = [int(bound[1]) for bound in bounds if bound]
    if len(numbers) == 1:
      return numbers[0]
    self.unknown_loops += 1
    return 1

  def kernels(self) -> list[tuple[Instruction, int]]:
    """(kernel, how often it runs)"""
    return [(i, times) for i, times in self.executed if i.is_kernel]

  def collectives(self) -> dict[str, tuple[int, int]]:
    """How many of each kind run, and the bytes of their results on one device."""
    found: dict[str, tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for i, times in self.executed:
      for collective in [i, *self._inside(i)]:
        if kind := collective.collective:
          count, size = found[kind]
          # A start's result has the operand too: the largest array is what is sent around.
          sizes = [logical for logical, _ in sizes_of(collective.shape)]
          moved = max(sizes) if collective.operation.endswith("-start") else sum(sizes)
          found[kind] = count + times, size + times * moved
    return dict(found)

  def _inside(self, instruction: Instruction) -> list[Instruction]:
    """What a fusion is made of."""
    return [inner for name in (instruction.called("calls") if instruction.operation == "fusion" else ())
            for inner in self.computations[name]]

  def source(self, instruction: Instruction, folder: str) -> str:
    """Where it was written: the innermost file of `folder` and its function, "losses.py:giou", else ""."""
    frame = instruction.frame
    while frame:
      file, function, parent = self._frames[frame]
      if folder in file:
        names = [name for name in function.split(".") if not name.startswith("<")]
        return f"{file.partition(folder)[2].lstrip('/')}:{names[-1] if names else function}"
      frame = parent
    return ""


def _total_cycles(run: list[tuple[Instruction, int]]) -> int:
  return sum((i.cycles or 0) * times for i, times in run)


def _frames(text: str) -> dict[int, tuple[str, str, int]]:
  """(file, function, the caller's frame; 0: none) of every stack frame, from the tables at the text's beginning."""
  tables: dict[str, dict[int, str]] = collections.defaultdict(dict)
  title = ""
  for line in text.splitlines():
    if re.fullmatch(r"FileNames|FunctionNames|FileLocations|StackFrames", line):
      title = line
    elif row := re.match(r"(\d+) (.*)", line):
      tables[title][int(row[1])] = row[2]
    elif line.startswith(("%", "ENTRY")):
      break

  def number(name: str, row: str) -> int:
    found = re.search(rf"\b{name}=(\d+)", row)
    return int(found[1]) if found else 0

  frames = {}
  for key, row in tables["StackFrames"].items():
    location = tables["FileLocations"][number("file_location_id", row)]
    parent = number("parent_frame_id", row)
    frames[key] = (tables["FileNames"][number("file_name_id", location)].strip('"'),
                   tables["FunctionNames"][number("function_name_id", location)].strip('"'),
                   parent if parent != key else 0)
  return frames


def sizes_of(shape: str) -> list[tuple[int, int]]:
  """(bytes, bytes with the padding of its tiles) of every array of a shape such as bf16[2,3]{1,0:T(8,128)(2,1)}.

  The tile T(8,128) rounds the two minor dimensions of the layout up; later tiles cut up the first and add nothing.
  """
  found = []
  for kind, dims, order, tiling in _ARRAY.findall(shape):
    if kind not in _BITS:
      continue
    sides = [int(side) for side in dims.split(",")] if dims else []
    padded = [sides[int(axis)] for axis in reversed(order.split(","))] if order else list(sides)  # Major first.
    tile = re.match(r"T\(([0-9,]+)\)", tiling)
    steps = [int(step) for step in tile[1].split(",")] if tile and sides else []
    if len(steps) > len(padded):
      padded = [1] * (len(steps) - len(padded)) + padded
    for axis, step in enumerate(reversed(steps), 1):
      padded[-axis] = math.ceil(padded[-axis] / step) * step
    found.append(tuple(_BITS[kind] * math.prod(each) // 8 for each in (sides, padded)))
  return found
