"""Many targets at once as one pure function: every lane follows one sequence after the other.

A lane is a place for one sequence. Whatever frame a lane gets comes with its size and a phase: nothing, the first
frame of a sequence, one further, or one further that shows nothing: the target is absent, and what is known of it stays
as it was. So lanes start and end sequences independently of each other, in the middle of a
chunk of frames too, and no lane waits for another.

Reset-based runs (VOT 2013-2019, Kristan et al.): a failure is a visible frame where the answer does not overlap the
truth, or is "absent". Nothing is tracked in the next frames; RESET_AFTER frames after the failure, or at the first
frame from there on in which the target is visible, the lane starts anew from the truth.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.geometry import Array, iou_xywh
from siamdff_jax.tracking.tracker import Output, Tracker, TrackerState

# Of a lane in one frame: what it is to do (`Inputs.phase`), what it did (`Answer.event`).
IDLE, START, TRACK, BLANK = 0, 1, 2, 3
RESET_AFTER = 5  # Frames.

Form = Literal["loop", "batch"]
# Lanes per device, and devices where there are several. A loop over one lane is unrolled and compiled together with
# what is around it, and a program for one device is compiled in another way than one for several: that changes bits.
FEWEST = {"loop": 2, "batch": 1}


class Inputs(NamedTuple):
  """What the lanes get, leading axes [T, L]: T frames of L lanes.

  Attributes:
    frame: uint8 [H, W], a canvas with the frame in the top left.
    shape: int32 [2], the frame's rows and columns.
    box: float32 [4] xywh, the box to start from; in reset-based runs the truth of every frame, zeros where absent.
    phase: int8 [], IDLE, START, TRACK or BLANK.
  """

  frame: Array
  shape: Array
  box: Array
  phase: Array


class Lanes(NamedTuple):
  """The state of all lanes, leading axis [L].

  Attributes:
    track: of the tracker.
    wait: int32 [], frames until a new start after a failure; 0 while tracking.
  """

  track: TrackerState
  wait: Array


class Answer(NamedTuple):
  """What the lanes say, leading axes [T, L].

  Attributes:
    output: of `Tracker.step`; means something only where event is TRACK.
    event: int8 [], IDLE (no track to go on with), START, TRACK or BLANK.
  """

  output: Output
  event: jax.Array


def default_form() -> Form:
  """How the lanes of one device go through the network on the default backend.

  "loop": one after the other. A lane's bits depend neither on the number of lanes, nor on the other lanes, nor on the
  size of chunks and canvas, nor on the number of devices if there are several: the compiled body of the loop is the
  same. With one device per core (`runner.one_device_per_core`) CPUs are as fast this way as with "batch".
  "batch": all together, which keeps an accelerator busy; sums come in an order that depends on the batch.
  """
  return "loop" if jax.default_backend() == "cpu" else "batch"


def empty(tracker: Tracker, variables: Any, lanes: int) -> Lanes:
  """Lanes that have not started, numpy."""
  shapes = jax.eval_shape(tracker.init, variables, jax.ShapeDtypeStruct((1, 1), jnp.uint8),
                          jax.ShapeDtypeStruct((4,), jnp.float32))
  return Lanes(jax.tree.map(lambda x: np.zeros((lanes, *x.shape), x.dtype), shapes), np.zeros(lanes, np.int32))


def advance(tracker: Tracker, variables: Any, lanes: Lanes, inputs: Inputs, *, reset: bool = False,
            form: Form = "loop") -> tuple[Lanes, Answer]:
  """T frames further (`lax.scan`).

  Args:
    tracker, variables: the same for all lanes.
    lanes, inputs: see there.
    reset: whether failures lead to new starts.
    form: see `default_form`.
  """
  step = _one_by_one if form == "loop" else _batched

  def frame(lanes: Lanes, now: Inputs) -> tuple[Lanes, Answer]:
    visible = (now.box[:, 2:] > 0).all(-1)
    again = (now.phase == TRACK) & (lanes.wait == 1) & visible
    tracks, blank = ((now.phase == phase) & (lanes.wait == 0) for phase in (TRACK, BLANK))
    starts = (now.phase == START) | again
    track, output = step(tracker, variables, lanes.track, now, tracks)
    track = _started(tracker, variables, track, now, starts)
    wait = lanes.wait
    if reset:
      hit = output.present & (iou_xywh(output.box, now.box) > 0)
      failed = visible & (tracks & ~hit | blank)
      wait = jnp.where(starts, 0, jnp.where(failed, RESET_AFTER, jnp.where(wait > 1, wait - 1, wait)))
    event = jnp.select([starts, tracks, blank], [START, TRACK, BLANK], IDLE).astype(jnp.int8)
    return Lanes(track, wait), Answer(output, event)

  return jax.lax.scan(frame, lanes, inputs)


def _batched(tracker: Tracker, variables: Any, track: TrackerState, now: Inputs,
             tracks: jax.Array) -> tuple[TrackerState, Output]:
  """All lanes as one batch. Lanes that do not track compute too, and keep the state that they had.

  Targets that may be elsewhere are looked for lane by lane: they are few, and what each looks at is a batch already.
  """
  before = track
  track, jump = jax.vmap(tracker.moved_with_camera)(track, now.frame, now.shape)
  stepped = jax.vmap(tracker.follow, in_axes=(None, 0, 0, 0))(variables, track, now.frame, now.shape)

  def search(lane: jax.Array) -> tuple[TrackerState, Output]:
    state, jumped = jax.tree.map(lambda x: x[lane], (track, jump))
    return tracker.search(variables, state, now.frame[lane], now.shape[lane], jumped)

  if tracker.settings.look.tiles:
    stepped = _lane_by_lane(search, stepped, tracks & jax.vmap(tracker.is_elsewhere)(track, jump))
  after, output = stepped

  def keep(old: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.where(tracks.reshape(-1, *[1] * (new.ndim - 1)), new, old)

  return jax.tree.map(keep, before, after), output


def _one_by_one(tracker: Tracker, variables: Any, track: TrackerState, now: Inputs,
                tracks: jax.Array) -> tuple[TrackerState, Output]:
  """The lanes that track, one after the other."""
  nothing = Output(jnp.zeros(4), jnp.zeros(()), jnp.zeros((), bool))

  def lane(x: tuple[jax.Array, ...]) -> tuple[TrackerState, Output]:
    tracks, *arguments = x
    return jax.lax.cond(tracks, lambda *x: tracker.step(variables, *x), lambda *x: (x[0], nothing), *arguments)

  return jax.lax.map(lane, (tracks, track, now.frame, now.shape))


def _started(tracker: Tracker, variables: Any, track: TrackerState, now: Inputs, starts: jax.Array) -> TrackerState:
  """Lanes start one by one: most frames start none, and computing the template of all lanes would cost them all."""
  return _lane_by_lane(lambda lane: tracker.init(variables, now.frame[lane], now.box[lane], now.shape[lane]), track,
                       starts)


def _lane_by_lane(make: Callable[[jax.Array], Any], lanes: Any, wanted: jax.Array) -> Any:
  """`lanes` (a pytree, leading axis [L]) with `make(lane)` in the place of those that are `wanted` (bool [L])."""

  def one(carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
    lanes, wanted = carry
    lane = wanted.argmax()
    return jax.tree.map(lambda x, new: x.at[lane].set(new), lanes, make(lane)), wanted.at[lane].set(False)

  return jax.lax.while_loop(lambda carry: carry[1].any(), one, (lanes, wanted))[0]
