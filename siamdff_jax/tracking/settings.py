"""The settings of a tracker: one place where each has its name, default, range and meaning. docs/tracker.md shows them.

They are in three groups, as the tracker is in three parts: look, belief, memory. Names are unique over the groups, so
`--tracker tiles=8` need not say that tiles are in `look`. The defaults are what the shipped trackers do; `PLAIN` is the
plain follower of the Siamese family. All values are our choice; what was tried is in docs/experiments.md.
"""

import dataclasses
from typing import Any, Self

from input_pipeline.errors import UserError
from siamdff_jax.names import did_you_mean
from siamdff_jax.rules import Rule, number, problems, switch, whole


def _setting(default: Any, rule: Rule, meaning: str) -> Any:
  return dataclasses.field(default=default, metadata={"rule": rule, "meaning": meaning})


@dataclasses.dataclass(frozen=True)
class _Group:
  """Settings that are checked when they are made and cannot be changed afterwards."""

  def __post_init__(self) -> None:
    rules = {field.name: field.metadata["rule"] for field in dataclasses.fields(self)}
    if found := problems(vars(self), rules, "tracker"):
      raise UserError("; ".join(found))
    for field in dataclasses.fields(self):
      if isinstance(field.default, float):
        object.__setattr__(self, field.name, float(getattr(self, field.name)))  # 1 where 1.0 is meant.


@dataclasses.dataclass(frozen=True)
class LookSettings(_Group):
  """Which windows of a frame are looked at."""

  search_side: int = _setting(
      0, whole(0), "Pixels of the search crop, 8 n + 7; 0 is as trained. More look further at the same scale.")
  tiles: int = _setting(
      8, whole(0), "Windows all over the frame in which a lost target is looked for; 0 is one window that grows.")
  growth: float = _setting(
      1.5, number(1), "How fast that window grows per lost frame, or the region of the tiles.")
  camera_compensation: bool = _setting(
      True, switch(), "Whether the search window moves with the background when the camera jumps.")


@dataclasses.dataclass(frozen=True)
class BeliefSettings(_Group):
  """Where the target is believed to be, and whether it is there."""

  scale_penalty: float = _setting(
      0.04, number(0), "k in exp(-(r s - 1) k), r and s the changes of aspect and of size (SiamRPN).")
  window: float = _setting(
      0.3, number(0, 1), "Weight of the expected place in the score of a cell.")
  deviation: float = _setting(
      0.5, number(0), "Least deviation of the Gaussian about the expected place, in target sizes; 0 is the family's "
      "cosine window.")
  presence_scale: float = _setting(
      1.0, number(), "Weight of the network's logit in the log odds of presence; scripts/calibrate.py fits all three.")
  presence_bias: float = _setting(
      -3.6, number(), "What is added to the log odds of presence.")
  presence_ratio: float = _setting(
      2.0, number(), "Weight of the log peak-to-sidelobe ratio in the log odds of presence.")
  jump_ratio: float = _setting(
      1.2, number(0), "The least log ratio at which a target far from the expected place is believed.")
  absent_below: float = _setting(
      0.03, number(0), "Presence below this is reported as absent; above 1, every frame is.")
  sure_above: float = _setting(
      0.75, number(0), "Presence above this lets a look be remembered; above 1, none is.")
  found_above: float = _setting(
      4.0, number(0), "Sum of log odds over frames from which on a lost target is taken up again.")
  found_share: float = _setting(
      0.4, number(0, 1), "Share of the log odds a target had while it was followed, taken off those of a lost frame.")
  lost_after: int = _setting(
      3, whole(0), "Absent frames in a row after which the target is lost and may be anywhere.")


@dataclasses.dataclass(frozen=True)
class MemorySettings(_Group):
  """What is carried on from frame to frame."""

  velocity_rate: float = _setting(
      0.3, number(0, 1), "How fast the velocity follows, per frame.")
  size_hold: float = _setting(
      0.2, number(0), "Change of the logarithm of width or height that is half believed; 0 believes all.")
  size_rate: float = _setting(
      0.3, number(0), "How fast the mean of the predicted sizes follows, per frame, at a score of 1.")
  size_window_share: float = _setting(
      0.1, number(least=0, below=1), "Weight of the search window's logarithm in that of a predicted size.")
  template_update: float = _setting(
      0.5, number(0, 0.5), "Share of a recent look in the template; 0 keeps the first look alone.")
  template_below: float = _setting(
      0.98, number(0), "The recent look counts where presence was below this in the frame before.")
  template_every: int = _setting(
      10, whole(1), "Frames between two recent looks.")


_GROUPS = {"look": LookSettings, "belief": BeliefSettings, "memory": MemorySettings}
FIELDS = {group: dataclasses.fields(kind) for group, kind in _GROUPS.items()}  # Metadata: "rule", "meaning".
RULES = {group: {field.name: field.metadata["rule"] for field in fields} for group, fields in FIELDS.items()}
GROUP_OF = {name: group for group, table in RULES.items() for name in table}


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings of a tracker. Equal ones hash alike, so that programs compiled for one serve the other."""

  look: LookSettings = LookSettings()
  belief: BeliefSettings = BeliefSettings()
  memory: MemorySettings = MemorySettings()

  def to_dict(self) -> dict[str, dict[str, Any]]:
    """{group: {name: value}}, what `config.tracker` holds."""
    return dataclasses.asdict(self)

  def replace(self, **values: Any) -> Self:
    """The same with other values, by their names alone.

    Raises:
      UserError: a name that does not exist, or a value that makes no sense.
    """
    changed: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for name, value in values.items():
      if name not in GROUP_OF:
        raise UserError(f"tracker.{name}: no such setting{did_you_mean(name, GROUP_OF)}")
      changed[GROUP_OF[name]][name] = value
    return dataclasses.replace(self, **{
        group: dataclasses.replace(getattr(self, group), **given) for group, given in changed.items()})


SHIPPED = Settings()
PLAIN = SHIPPED.replace(
    tiles=0, growth=1.15, camera_compensation=False, presence_bias=0.0, presence_ratio=0.0, jump_ratio=0.0,
    absent_below=0.35, sure_above=0.6, found_above=0.5, found_share=0.0, lost_after=5, template_update=0.0,
    template_below=1.0)
PRESETS = {"shipped": SHIPPED, "plain": PLAIN}
