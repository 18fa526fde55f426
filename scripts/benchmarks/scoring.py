"""How long `scripts/compare.py` takes: result files of many trackers against a benchmark's labels, to the report."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "compare.py"


def rows(folder: str, repeats: int, sequences: int = 120, frames: int = 1000, trackers: int = 21) -> Iterator[dict]:
  """Seconds of whole processes, start and imports included.

  Args:
    folder: for the made-up data (text labels as Anti-UAV410 has them, with absences and attributes; text results).
    repeats: runs that count.
    sequences, frames, trackers: how many.
  """
  _write(folder, sequences, frames, trackers)
  command = [sys.executable, str(SCRIPT), "--format", "antiuav410", "--root", os.path.join(folder, "labels"),
             "--protocol", "antiuav410", "--out", os.path.join(folder, "out"), "--clips", "0", "--results",
             *(f"t{i:02d}={os.path.join(folder, f't{i:02d}')}" for i in range(trackers))]
  seconds = []
  for _ in range(repeats):
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds.append(time.perf_counter() - started)
  page = os.path.getsize(os.path.join(folder, "out", "report.html"))
  yield {"sequences": sequences, "frames": frames, "trackers": trackers, "seconds": float(np.median(seconds)),
         "slowest": max(seconds), "report.html, MB": page / 1e6, "all seconds": seconds}


def _write(folder: str, sequences: int, frames: int, trackers: int) -> None:
  """Random walks, and trackers that follow them the worse the higher their number, losing the target now and then."""
  random = np.random.default_rng(0)
  flags = os.path.join(folder, "labels", "annos", "test", "att")
  for path in (flags, *(os.path.join(folder, f"t{i:02d}") for i in range(trackers))):
    os.makedirs(path)
  for s in range(sequences):
    size = np.exp(random.normal(3, 0.6)) * np.ones((frames, 2)) * (1.2, 1)
    truth = np.hstack([np.abs(300 + random.normal(0, 2, (frames, 2)).cumsum(axis=0)) + 1, size])
    gone = random.random() < 0.3
    truth[frames // 2:frames // 2 + 20 * gone] = 0
    name = f"s{s:03d}.txt"
    np.savetxt(os.path.join(os.path.dirname(flags), name), truth, fmt="%.2f", delimiter=",")
    with open(os.path.join(flags, name), "w") as file:
      file.write(",".join(str(int(flag)) for flag in random.random(10) < 0.3) + "\n")
    for i in range(trackers):
      found = truth + random.normal(0, 0.5 + 0.2 * i, truth.shape)
      if random.random() < 0.02 * i:
        found[random.integers(frames):, :2] += 200
      found[0] = truth[0]
      np.savetxt(os.path.join(folder, f"t{i:02d}", name), found, fmt="%.3f", delimiter=",")
