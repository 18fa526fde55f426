"""Checkpoints by Orbax: saved in the background, atomic, the best and the last two kept, config and step inside.

What a fault may leave behind is passed over: a start resumes from the newest checkpoint that is whole, and a save that
fails is said and tried again at the next.
"""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import checksums, contents, faults

log = logging.getLogger(__name__)
_PATIENCE = (0.1, 0.3, 1.0, 3.0)  # Seconds for the writes that a failed save has abandoned.


class _State(Protocol):
  """What is saved: a dataclass of trees of arrays, like `training.state.TrainState`."""

  @property
  def step(self) -> jax.Array:
    """int32 [], the steps taken."""

  def replace(self, **parts: Any) -> Self:
    """One with other parts."""


State = TypeVar("State", bound=_State)


class Checkpoints:
  """The checkpoints of one workdir. Use as a context manager: leaving it waits for the last save.

  Args:
    workdir: a folder, made where it is missing, or a bucket's url (what etils.epath opens).
    keep: how many of the last checkpoints stay, beside the best. Two: when the last turns out to be damaged, there is
      the one before. While saving there are `keep` + 2 on the disk.

  Raises:
    UserError: the folder cannot be made.
  """

  def __init__(self, workdir: str, keep: int = 2):
    self.folder = contents.location(workdir) / contents.FOLDER
    self._keep = keep
    self._saving: int | None = None  # The step under way.
    self._lost: tuple[int, str] | None = None  # (step, why) of the last save, when it failed.
    self._manager: ocp.CheckpointManager | None = None
    self._entered = contextlib.ExitStack()
    self._quiet = contextlib.ExitStack()  # Entered from the start of a save until it has arrived.
    try:
      self._open()
    except OSError as error:
      raise UserError(f"{self.folder}: cannot be made or read ({error.strerror or error})") from error

  def __enter__(self) -> Self:
    self._entered.enter_context(faults.without_tracebacks())
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    with self._entered, self._quiet:
      try:
        if kind is None:
          self.wait()
        else:
          self._settle()
      finally:
        self._close()

  @property
  def last_step(self) -> int | None:
    """Of the newest checkpoint, whole or not."""
    return max(contents.steps(self.folder), default=None)

  @property
  def saving(self) -> bool:
    """Whether a save is under way in the background."""
    return self._manager is not None and self._manager.is_saving_in_progress()

  def save(self, state: State, config: ml_collections.ConfigDict, quality: float | None = None,
           inputs: Mapping[str, Mapping] | None = None) -> None:
    """Starts saving `state` under its step; returns when the state may be changed again.

    `quality`: the higher the better; None where it was not measured. `inputs`: for `trained.newest_origin`.

    A save that fails, now or in the background, is a warning: training goes on. `wait` says whether the last arrived.
    """
    step = int(state.step)
    parts = _as_dict(state)
    items = ocp.args.Composite(
        state=ocp.args.PyTreeSave(parts), config=ocp.args.JsonSave(json.loads(config.to_json_best_effort())),
        checksums=ocp.args.JsonSave(checksums.of(contents.named(parts))), inputs=ocp.args.JsonSave(dict(inputs or {})))
    self._settle()
    self._be_quiet()
    why = None
    try:
      if not self._begin(step, metrics={"quality": contents.comparable(quality)}, args=items):
        self._quiet.close()
        return
    except Exception as error:  # Orbax and its storage raise all kinds; whatever it is, training is worth more.
      why = faults.reason(error)
    self._note(step, why)
    self._saving = step if self._lost is None else None

  def _begin(self, step: int, **save: Any) -> bool:
    """Whether a save was started, which it is not where the step is saved already."""
    patience = iter(_PATIENCE)
    while True:
      try:
        manager = self._manager_of_folder()
        if step in manager.all_steps():
          return False
        manager.save(step, **save)
        return True
      except Exception as error:
        seconds = next(patience, None)
        if seconds is None or not faults.is_unsettled(error):
          raise
      self._close()
      time.sleep(seconds)

  def wait(self) -> None:
    """Waits for the last save.

    Raises:
      UserError: it failed; the sentence says up to which step the run is safe.
    """
    self._settle()
    if self._lost:
      step, why = self._lost
      safe = self.last_step
      raise UserError(f"{self.folder}: the last save, of step {step}, failed ({why}); "
                      + ("nothing of this run is saved" if safe is None else f"the run is safe up to step {safe}"))

  def restore(self, state: State) -> State:
    """The newest whole checkpoint, in the shapes, types and placement of `state`; `state` itself when there is none.

    Newer ones that are damaged are named in a warning and renamed. All processes take the same.

    Raises:
      UserError: the checkpoint holds other arrays than this config makes, or several are there and all are damaged.
    """
    damaged: dict[int, str] = {}
    while (step := faults.from_first(max(set(contents.steps(self.folder)) - set(damaged), default=-1))) >= 0:
      try:
        restored = _read(self.folder / str(step), state)
        break
      except faults.Damaged as error:
        if not damaged:  # The reads that Orbax has abandoned are reported when Python collects them, whenever that is.
          self._entered.enter_context(faults.quiet())
        damaged[step] = str(error)
    else:
      # One is what the fault left of a young run's first save. Several mean that something else is wrong.
      if len(damaged) > 1:
        raise UserError(f"{self.folder}: all of its checkpoints are damaged; the newest: {damaged[max(damaged)]}; "
                        "nothing was changed, move the folder away to start from the beginning")
      restored = state
      if damaged:
        log.warning("%s: no whole checkpoint is left; from the beginning", self.folder)
    if damaged:
      self._close()
      for step, why in damaged.items():
        faults.set_aside(self.folder / str(step), why)
      self._open()
    return restored

  def _open(self) -> None:
    """A new Orbax manager on what the folder holds; it removes what an interrupted save left."""
    self._close()
    while unreadable := self._with_unreadable_metrics():  # Orbax's manager would not start.
      faults.set_aside(*unreadable)
    # Best by the quality of the moving average; a checkpoint without one is only ever among the last.
    keep = managers.AnyPreservationPolicy([managers.LatestN(self._keep), managers.BestN(
        get_metric_fn=_quality, n=1, keep_checkpoints_without_metrics=False)])
    # Folders are made before `save` returns: where that fails in the background, other threads of Orbax may wait for
    # them for five minutes, and the end of the process with them.
    background = ocp.AsyncOptions(create_directories_asynchronously=False,
                                  post_finalization_callback=lambda: self._quiet.close())  # Everything is written.
    # `best_fn` is what makes the manager write the metrics to disk, for `find` and for the run after a restart.
    options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=_quality, enable_async_checkpointing=True,
                                           async_options=background, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def _with_unreadable_metrics(self) -> tuple[epath.Path, str] | None:
    """(a checkpoint, what is wrong with its metrics), the same on all processes; None when there is none."""
    reasons = {step: why for step in contents.steps(self.folder)
               if (why := contents.unreadable_metrics(self.folder / str(step)))}
    step = faults.from_first(max(reasons, default=-1))
    path = self.folder / str(step)
    return None if step < 0 else (path, reasons.get(step, f"{path}: its metrics cannot be read"))

  def _manager_of_folder(self) -> ocp.CheckpointManager:
    """The manager; a new one where there is none any more, or the folder that it knows is gone."""
    vanished = faults.on_any_process(not self.folder.exists())
    if vanished:
      log.warning("%s: has vanished with the checkpoints in it; it is made again", self.folder)
    if vanished or self._manager is None:
      self._open()
    return self._manager

  def _be_quiet(self) -> None:
    """About what Orbax may abandon, an earlier save too, until a save has arrived."""
    quiet = contextlib.ExitStack()
    quiet.enter_context(faults.quiet())
    self._quiet.close()
    self._quiet = quiet

  def _settle(self) -> None:
    """Waits for the save under way and notes whether it arrived."""
    if self._saving is None:
      return
    step, self._saving, why = self._saving, None, None
    try:
      assert self._manager is not None  # It has begun the save.
      self._manager.wait_until_finished()
      if not (self.folder / str(step)).exists():
        why = "it has vanished"
    except Exception as error:  # As in `save`.
      why = faults.reason(error)
    self._note(step, why)

  def _note(self, step: int, why: str | None) -> None:
    """Remembers and says that the save of `step` failed for the reason `why`; None is a success."""
    if not faults.on_any_process(why is not None):
      self._lost = None
      return
    self._lost = step, why or "on another process"
    log.warning("%s: step %d could not be saved (%s); training goes on, and the next save is tried as usual",
                self.folder, step, self._lost[1])
    self._close()  # A manager whose save failed has forgotten which checkpoints it wanted to remove.

  def _close(self) -> None:
    manager, self._manager = self._manager, None
    try:
      if manager is not None:
        manager.close()
    except Exception as error:  # Of a save that failed: `_note` has said it.
      log.debug("%s: closing after a failed save: %s", self.folder, error)


def _read(path: epath.Path, state: State) -> State:
  """A checkpoint in the shapes, types and placement of `state`; `faults.Damaged` on all processes when it is on one."""
  parts = _as_dict(state)
  restored: dict[str, Any] = {}
  expected: dict[str, int] = {}
  damaged: faults.Damaged | None = None
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), parts)
  try:
    # Not by the manager: its barriers would wait for a process that could not read.
    restored = contents.read_arrays(path, target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
    expected = contents.saved_checksums(path)
  except faults.Damaged as error:
    damaged = error
  if faults.on_any_process(damaged is not None):
    raise damaged or faults.Damaged(f"{path}: another process could not read it")
  # Part by part: a dict's leaves come in the order of its names, a state's in the order of its fields.
  restored = {name: jax.tree.unflatten(jax.tree.structure(part), jax.tree.leaves(restored[name]))
              for name, part in parts.items()}
  contents.require_checksums(path, restored, expected)
  return state.replace(**restored)


def _quality(metrics: Mapping[str, Any]) -> float | None:
  """What the best checkpoint is chosen by, of the metrics saved with it."""
  return metrics.get("quality", metrics.get("iou"))  # "iou": of older checkpoints.


def _as_dict(state: Any) -> dict[str, Any]:
  """The state as named parts."""
  return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
