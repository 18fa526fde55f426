"""Where the numbers of a run go: a progress line, JSON lines, TensorBoard."""

import json
import os

from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"


class RunLog:
  """Writes scalars of a run. Lines of steps after `start_step` (from before a kill) are dropped when resuming."""

  def __init__(self, workdir: str, start_step: int, steps: int, batch_size: int):
    self._path = os.path.join(workdir, METRICS_FILE)
    if os.path.exists(self._path):
      with open(self._path) as file:
        lines = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= start_step]
      with open(self._path, "w") as file:
        file.writelines(lines)
    self._file = open(self._path, "a")
    self._board = SummaryWriter(os.path.join(workdir, "tensorboard"), purge_step=start_step + 1)
    self._batch_size = batch_size
    self.progress = tqdm(total=steps, initial=start_step, unit="step", desc="train", mininterval=2, dynamic_ncols=True)

  def advance(self):
    self.progress.update()

  def write(self, step: int, scalars: dict[str, float]):
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    for name, value in scalars.items():
      self._board.add_scalar(name, value, step)
    shown = {"loss": "loss", "iou": "iou", "validation/iou": "val_iou", "pairs_per_second": "pairs/s"}
    self.progress.set_postfix({short: f"{scalars[name]:.3g}" for name, short in shown.items() if name in scalars},
                              refresh=False)

  def close(self):
    self.progress.close()
    self._file.close()
    self._board.close()
