"""Where the numbers of a run go: a progress line, JSON lines, TensorBoard."""

import json
import logging

from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
_SHOWN = {"loss": "loss", "iou": "iou", "validation/iou": "val_iou",
          "evaluation/score": "score", "pairs_per_second": "pairs/s",
          "input_wait": "wait", "mfu": "mfu"}


class RunLog:
  """Writes scalars of a run. Lines of steps after `start_step` (from before a kill) are dropped when resuming.

  A log that cannot be written is said once and does not stop the training: the checkpoints are what counts.
  """

  def __init__(self, workdir: str, start_step: int, steps: int, enabled: bool = True):
    """`enabled`: whether this process writes at all (with several, one does)."""
    self._path = epath.Path(workdir) / METRICS_FILE
    self._broken = not enabled
    self._board = None
    self.progress = tqdm(total=steps, initial=start_step, unit="step", desc="train", mininterval=2, dynamic_ncols=True,
                         disable=not enabled)
    if enabled:
      self._guarded(self._open, start_step)

  def advance(self):
    self.progress.update()

  def write(self, step: int, scalars: dict[str, float]):
    self._guarded(self._write, step, scalars)
    self.progress.set_postfix({short: f"{scalars[name]:.3g}" for name, short in _SHOWN.items() if name in scalars},
                              refresh=False)

  def close(self):
    self.progress.close()
    if self._board:
      self._guarded(self._board.close)

  def _open(self, start_step):
    if self._path.exists():
      lines = self._path.read_text().splitlines(keepends=True)
      self._path.write_text("".join(line for line in lines if _is_before(line, start_step)))
    try:
      self._board = SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=start_step + 1)
    except ImportError as error:  # tensorboardX wants a package more for each kind of bucket.
      logging.getLogger(__name__).warning("%s: no TensorBoard files there (%s)", self._path.parent, error)

  def _write(self, step, scalars):
    with self._path.open("a") as file:
      file.write(json.dumps({"step": step, **scalars}) + "\n")
    for name, value in scalars.items() if self._board else ():
      self._board.add_scalar(name, value, step)

  def _guarded(self, action, *arguments):
    if self._broken:
      return
    try:
      action(*arguments)
    except OSError as error:
      self._broken = True
      logging.getLogger(__name__).warning("%s: cannot be written (%s); training goes on without its log", self._path,
                                          error.strerror or error)


def _is_before(line: str, start_step: int) -> bool:
  """Whether a line is whole and of a step that was saved."""
  try:
    return line.endswith("\n") and json.loads(line)["step"] <= start_step
  except (ValueError, KeyError, TypeError):
    return False
