"""What docs/performance.md shows of an accelerator, as one command: sweep, loop against step, memory."""

from collections.abc import Iterable, Iterator

from benchmarks import loop, memory, step
from benchmarks.cases import Case


def tables(cases: list[Case], batches: list[int], repeats: int) -> Iterator[tuple[str, Iterable[dict]]]:
  """(title, rows) one after the other; the rows are measured while they are read.

  Args:
    cases: most important first, should the machine be taken away.
    batches: global batch sizes, ascending; a case's sweep ends at the first that does not fit.
    repeats: timings.
  """
  # The mesh layout: on one device it is the plain jitted step, and it tells its memory.
  cases = [case.with_batch(batches[0], kind="mesh") for case in cases]
  kept: list[tuple[Case, dict]] = []

  def swept() -> Iterator[dict]:
    for case in cases:
      for row in step.rows([case], batches, repeats):
        kept.append((case, row))
        yield row

  yield "Training step", swept()
  yield "Memory of the training step, GiB per device", (memory.breakdown(row, case.config) for case, row in kept)
  yield "Training loop against bare step, data on the device", looped(cases, kept, repeats)


def looped(cases: list[Case], kept: list[tuple[Case, dict]], repeats: int) -> Iterator[dict]:
  """The loop at each case's fastest batch size of the sweep."""
  for case in cases:
    fitting = [row for of, row in kept if of is case and row["pairs/s"]]
    if fitting:
      yield from loop.rows([case], max(fitting, key=lambda row: row["pairs/s"])["batch"], repeats)
