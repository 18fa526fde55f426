"""One target through one input: what `scripts/track.py` does."""

import os
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from input_pipeline import datasets
from input_pipeline.errors import DataError
from siamdff_jax.evaluation import results
from siamdff_jax.models.load import load_tracker
from siamdff_jax.tracking import video
from siamdff_jax.tracking.runner import Runner, Stream
from siamdff_jax.tracking.settings import with_settings


def track_input(checkpoint: str, source: str, box: list[str], out: str, settings: Sequence[str] = ()):
  """Tracks and writes boxes.json and track.mp4.

  Args:
    checkpoint: see `checkpoints.find`.
    source: a video file or a folder of images.
    box: four numbers as text, xywh in pixels of the first frame.
    out: the folder to write to.
    settings: of the tracker, see `settings.with_settings`.

  Raises:
    DataError: anything the user gave that does not work.
  """
  try:
    start = np.array([float(v) for v in box])
  except ValueError:
    start = np.zeros(0)
  if start.shape != (4,):
    raise DataError(f"--box={','.join(box)}: expected four numbers x,y,w,h in pixels")
  frames = datasets.open_frames(source)
  tracker, variables = load_tracker(checkpoint)
  tracker = with_settings(tracker, settings)
  runner = Runner(tracker, variables, streams=1, chunk=1)
  name = os.path.basename(os.path.normpath(source))
  _, result = next(iter(runner.run([Stream(name, frames, start)])))
  try:
    os.makedirs(out, exist_ok=True)
  except OSError as error:
    raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
  results.write(os.path.join(out, "boxes.json"), result, init=start)
  path = os.path.join(out, "track.mp4")
  video.write(path, tqdm(frames, desc="video", unit="frame", total=len(frames), mininterval=1), result)
  print(f"{len(frames)} frames at {runner.fps:.1f} frames/s, target present in {int(result.present.sum())}; "
        f"boxes in {os.path.join(out, 'boxes.json')}, video in {path}")
