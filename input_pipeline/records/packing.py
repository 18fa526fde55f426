"""Packing: sequences -> parts, one file each -> the TFDS data set. What an interrupted run had finished is kept."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent import futures

import numpy as np
from tqdm import tqdm

from input_pipeline.errors import UserError
from input_pipeline.frames import VideoFile
from input_pipeline.records import reading
from input_pipeline.records.cutting import CONTEXT, PackedSequence, cut, fingerprint, fingerprint_by_sizes
from input_pipeline.sequences import Sequence

log = logging.getLogger(__name__)

# What JPEG at quality 95 may change: measured on infrared frames it is below 1 grey level on average.
MAX_MEAN_ERROR = 2.0


def prepare(sequences: list[Sequence], root: str, *, context: float = CONTEXT, workers: int = 1,
            shards: int | None = None) -> None:
  """Packs sequences into the folder `root`. Started again, it goes on where it was stopped.

  Args:
    sequences: with frames. Those that never show their target are left out.
    root: holds the data set when done; see `builder` for its features.
    context: half the side of what is stored, in sides of the template window.
    workers: threads that read and encode.
    shards: number of files; TFDS chooses by size when None.

  Raises:
    UserError: an unreadable frame, other data in `root`, or a folder that cannot be written.
  """
  kept = [s for s in sequences if s.visible.any()]
  if len(kept) < len(sequences):
    log.info("%d sequences never show their target and are left out", len(sequences) - len(kept))
  if not kept:
    raise UserError(f"{root}: no sequence with a visible target to pack")
  mark = fingerprint(kept, context)
  if _is_packed(kept, root, mark, context):
    return
  parts = os.path.join(root, f"parts-{mark}")
  try:
    os.makedirs(parts, exist_ok=True)
    with _alone(root):
      if _is_packed(kept, root, mark, context):  # By now.
        return
      os.makedirs(parts, exist_ok=True)
      for name in os.listdir(root):  # Parts of other data are of no use any more.
        if name.startswith("parts-") and name != os.path.basename(parts):
          shutil.rmtree(os.path.join(root, name))
      _cut_all(kept, parts, context, workers)
      _write(kept, parts, root, mark, context, shards)
      shutil.rmtree(parts)
  except OSError as error:
    raise UserError(f"{root}: the packed data cannot be written ({error.strerror or error}); what is done is kept, the "
                    "same command goes on") from error


def _is_packed(sequences: list[Sequence], root: str, mark: str, context: float) -> bool:
  """Whether the folder holds these sequences; raises a UserError where it holds others."""
  if not os.path.exists(os.path.join(reading.dataset_folder(root), reading.INDEX)):
    return False
  found = reading.packed_fingerprint(root)
  if found == fingerprint_by_sizes(sequences, context):
    log.warning("%s: was packed by an earlier version, which told frames apart by the sizes of their files only; to "
                "be sure, pack again into another folder", root)
  elif found != mark:
    raise UserError(f"{root}: holds packed data of another source or context (fingerprint {found}, now {mark}); name "
                    "another folder, or delete it")
  log.info("%s: already packed (fingerprint %s)", root, mark)
  return True


@contextlib.contextmanager
def _alone(root: str) -> Iterator[None]:
  """Waits while another process packs into the folder; where the file system has no locks it cannot be told."""
  folder = os.open(root, os.O_RDONLY)
  try:
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    log.info("%s: another process packs there; waiting for its end", root)
    fcntl.flock(folder, fcntl.LOCK_EX)
  except OSError as error:
    log.debug("%s: no locks there (%s)", root, error)
  try:
    yield
  finally:
    os.close(folder)


def verify(sequences: list[Sequence], root: str, frames: int | None = 200) -> tuple[float, int]:
  """Compares packed data with their source: all labels, and the pixels of some frames.

  Args:
    sequences: the source.
    root: see `prepare`.
    frames: how many frames to decode, drawn evenly over the data; None for all.

  Returns:
    The mean and the largest difference in grey levels.

  Raises:
    UserError: labels that differ, or pixels that differ by more than JPEG explains.
  """
  source = {s.name: s for s in sequences if s.visible.any()}
  packed = reading.load(root)
  if sorted(source) != sorted(s.name for s in packed):
    raise UserError(f"{root}: holds other sequences than the source; delete it and pack again")
  for sequence in packed:
    same = np.array_equal(sequence.boxes, source[sequence.name].boxes)
    same &= np.array_equal(sequence.lookalikes, source[sequence.name].lookalikes)
    if not same or not np.array_equal(sequence.visible, source[sequence.name].visible):
      raise UserError(f"{root}: the labels of {sequence.name} differ from the source's; delete it and pack again")
  places = [(s, t) for s in packed for t in range(len(s))]
  chosen = np.unique(np.linspace(0, len(places) - 1, min(frames or len(places), len(places))).astype(int))
  total, pixels, largest = 0.0, 0, 0
  for n in tqdm(chosen, desc="verify", unit="frame", delay=2):  # In order: a video is read forward.
    sequence, t = places[n]
    crops, whole = sequence.frames, source[sequence.name].frames
    assert crops is not None and whole is not None
    stored, frame = crops.cutout(t), whole[t]
    x, y, (h, w) = stored.x, stored.y, stored.image.shape
    difference = np.abs(frame[y:y + h, x:x + w].astype(np.int16) - stored.image)
    if difference.mean() > MAX_MEAN_ERROR or abs(frame.mean() - stored.mean) > 1e-2:
      raise UserError(f"{root}: frame {t} of {sequence.name} differs from the source by {difference.mean():.1f} grey "
                      "levels on average; delete it and pack again")
    total, pixels, largest = total + difference.sum(), pixels + difference.size, max(largest, int(difference.max()))
  return float(total / pixels), largest


def packed(sequences: list[Sequence], folder: str, context: float, *, all_of_them: bool = False) -> list[Sequence]:
  """Replaces sequences by packed ones, which are written on first use.

  Args:
    sequences: of one data set.
    folder: packed data lie below it, by fingerprint.
    context: see `prepare`.
    all_of_them: otherwise only those stored as video, which decodes from its start only.
  """
  chosen = [s for s in sequences if s.visible.any() and (all_of_them or isinstance(s.frames, VideoFile))]
  if not chosen:
    return sequences
  root = os.path.join(folder, fingerprint(chosen, context))
  prepare(chosen, root, context=context, workers=os.cpu_count() or 1)
  found = {s.name: s for s in reading.load(root)}
  return [found.get(s.name, s) for s in sequences]


def _part(folder: str, number: int) -> str:
  return os.path.join(folder, f"{number:06d}.npz")


def _cut_all(sequences: list[Sequence], folder: str, context: float, workers: int) -> None:
  """Writes the missing parts, several sequences at a time."""
  missing = [(n, s) for n, s in enumerate(sequences) if not os.path.exists(_part(folder, n))]
  total, lock = sum(len(s) for s in sequences), threading.Lock()
  with tqdm(total=total, initial=total - sum(len(s) for _, s in missing), desc="pack", unit="frame") as progress:

    def advance() -> None:
      with lock:
        progress.update()

    def make(number: int, sequence: Sequence) -> None:
      made = cut(sequence, context, advance)
      path = _part(folder, number)
      with open(f"{path}.{os.getpid()}.partial", "wb") as file:
        np.savez(file, jpegs=np.frombuffer(b"".join(made.jpegs), np.uint8), sizes=[len(j) for j in made.jpegs],
                 rectangles=made.rectangles, means=made.means)
      os.replace(file.name, path)

    with futures.ThreadPoolExecutor(workers) as pool:
      running = [pool.submit(make, *item) for item in missing]
      try:
        for future in futures.as_completed(running):
          future.result()
      finally:
        for future in running:
          future.cancel()


def _read_part(path: str) -> PackedSequence:
  with np.load(path, allow_pickle=False) as part:
    ends = np.cumsum(part["sizes"])
    data = part["jpegs"].tobytes()
    jpegs = [data[end - size:end] for end, size in zip(ends, part["sizes"], strict=True)]
    return PackedSequence(jpegs, part["rectangles"], part["means"])


def _write(sequences: list[Sequence], folder: str, root: str, mark: str, context: float, shards: int | None) -> None:
  """Writes the data set from the parts, and last its index."""
  from input_pipeline.records import builder

  builder.tfds.disable_progress_bar()  # One of ours is enough.
  # Without its index a data set is what an interruption left, perhaps of another source; writing it again is quick.
  shutil.rmtree(os.path.dirname(reading.dataset_folder(root)), ignore_errors=True)
  made = builder.InfraredCrops(data_dir=root, examples=_examples(sequences, folder),
                               facts={"fingerprint": mark, "context": context})
  with contextlib.redirect_stdout(None):  # It speaks of downloading.
    made.download_and_prepare(download_config=builder.tfds.download.DownloadConfig(num_shards=shards))
  shutil.rmtree(os.path.join(root, "downloads"), ignore_errors=True)  # TFDS makes the folder, nothing is in it.
  parts = [_read_part(_part(folder, n)) for n in range(len(sequences))]
  path = os.path.join(made.data_dir, reading.INDEX)
  with open(path + ".partial", "wb") as file:
    np.savez(file, fingerprint=mark, context=context, names=[s.name for s in sequences],
             lengths=[len(s) for s in sequences], attributes=[json.dumps(s.attributes) for s in sequences],
             boxes=np.concatenate([s.boxes for s in sequences]),
             visible=np.concatenate([s.visible for s in sequences]),
             lookalikes=np.concatenate([s.lookalikes for s in sequences]),
             lookalike_counts=[len(s.lookalikes) for s in sequences],
             rectangles=np.concatenate([p.rectangles for p in parts]), means=np.concatenate([p.means for p in parts]))
  os.replace(path + ".partial", path)


def _examples(sequences: list[Sequence], folder: str) -> Iterator[dict]:
  for n, sequence in enumerate(tqdm(sequences, desc="write", unit="seq", delay=2)):
    part = _read_part(_part(folder, n))
    for t, (jpeg, rectangle, mean) in enumerate(zip(part.jpegs, part.rectangles, part.means, strict=True)):
      yield {"image": jpeg, "x": rectangle[0], "y": rectangle[1], "mean": mean, "box": sequence.boxes[t],
             "visible": sequence.visible[t], "sequence": sequence.name, "frame": t}
