"""Where the numbers of a run go: a progress line, JSON lines, TensorBoard; and the reader of the JSON lines."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
_SHOWN = {"loss": "loss", "iou": "iou", "validation/iou": "val_iou",
          "evaluation/score": "score", "pairs_per_second": "pairs/s",
          "input_wait": "wait", "mfu": "mfu"}


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The lines of a training's METRICS_FILE, each with its "step"; none where there is no file yet.

  What a kill has left of a line is passed over.
  """
  path = epath.Path(workdir) / METRICS_FILE
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  return [line for text in lines if (line := _parsed(text)) is not None]


def _parsed(text: str) -> dict[str, Any] | None:
  """A line that is whole; None for any other."""
  try:
    line = json.loads(text) if text.endswith("\n") else None
  except ValueError:
    return None
  return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def append_metrics(workdir: str, line: Mapping[str, Any]) -> None:
  """Adds a line, with its "step", to a training's METRICS_FILE."""
  with (epath.Path(workdir) / METRICS_FILE).open("a") as file:
    file.write(json.dumps(line) + "\n")


def drop_metrics_after(workdir: str, step: int) -> None:
  """Removes the lines of later steps than the one a training goes on from."""
  path = epath.Path(workdir) / METRICS_FILE
  if path.exists():
    path.write_text("".join(json.dumps(line) + "\n" for line in read_metrics(workdir) if line["step"] <= step))


class RunLog:
  """Writes scalars of a run. Lines of steps after `start_step` (from before a kill) are dropped when resuming.

  A log that cannot be written is said once and does not stop the training: the checkpoints are what counts.

  Args:
    workdir: of the training.
    start_step: the step that this start goes on from.
    steps: of the whole training, for the progress line.
    enabled: whether this process writes at all (with several, one does).
  """

  def __init__(self, workdir: str, start_step: int, steps: int, enabled: bool = True):
    self._workdir = workdir
    self._broken = not enabled
    self._board: SummaryWriter | None = None
    self.progress = tqdm(total=steps, initial=start_step, unit="step", desc="train", mininterval=2, dynamic_ncols=True,
                         disable=not enabled)
    if enabled:
      self._guarded(self._open, start_step)

  def advance(self) -> None:
    """One step was taken."""
    self.progress.update()

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes {name: value} of a step, and shows some of them in the progress line."""
    self._guarded(self._write, step, scalars)
    self.progress.set_postfix({short: f"{scalars[name]:.3g}" for name, short in _SHOWN.items() if name in scalars},
                              refresh=False)

  def close(self) -> None:
    """Ends the progress line and the TensorBoard file."""
    self.progress.close()
    if self._board:
      self._guarded(self._board.close)

  def _open(self, start_step: int) -> None:
    drop_metrics_after(self._workdir, start_step)
    try:
      self._board = SummaryWriter(str(epath.Path(self._workdir) / "tensorboard"), purge_step=start_step + 1)
    except ImportError as error:  # tensorboardX wants a package more for each kind of bucket.
      logging.getLogger(__name__).warning("%s: no TensorBoard files there (%s)", self._workdir, error)

  def _write(self, step: int, scalars: Mapping[str, float]) -> None:
    append_metrics(self._workdir, {"step": step, **scalars})
    if self._board:
      for name, value in scalars.items():
        self._board.add_scalar(name, value, step)

  def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
    if self._broken:
      return
    try:
      action(*arguments)
    except OSError as error:
      self._broken = True
      logging.getLogger(__name__).warning("%s: cannot be written (%s); training goes on without its log",
                                          epath.Path(self._workdir) / METRICS_FILE, error.strerror or error)
