"""What is compared with what: student and teacher features of both branches and every backbone level."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from siamdff_jax.models.backbone import STRIDE

BRANCHES = ("template", "search")


class Pair(NamedTuple):
  """One feature map of each network, float32, on the same grid; the teacher's is constant to the gradient."""

  branch: str
  level: int
  student: jax.Array  # [B, H, W, C_student]
  teacher: jax.Array  # [B, H, W, C_teacher]

  @property
  def name(self) -> str:
    return f"{self.branch}{self.level}"


def feature_pairs(student: dict, teacher: dict) -> list[Pair]:
  """The pairs of two `SiamDFF` outputs, in the order template 2, 3, 4, search 2, 3, 4.

  Raises:
    ValueError: the grids or the levels differ.
  """
  pairs = []
  for branch in BRANCHES:
    ours, theirs = student[f"{branch}_backbone"], teacher[f"{branch}_backbone"]
    if sorted(ours) != sorted(theirs):
      raise ValueError(f"the student has {branch} levels {sorted(ours)}, the teacher {sorted(theirs)}: they must agree")
    for level in sorted(ours):
      if ours[level].shape[:3] != theirs[level].shape[:3]:
        raise ValueError(_mismatch(branch, level, ours[level].shape, theirs[level].shape))
      pairs.append(Pair(branch, level, ours[level].astype(jnp.float32),
                        jax.lax.stop_gradient(theirs[level].astype(jnp.float32))))
  return pairs


def _mismatch(branch: str, level: int, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
  message = f"{branch} features of level {level} are {ours} in the student but {theirs} in the teacher [B, H, W, C]"
  if ours[0] != theirs[0]:
    return f"{message}; both networks must see the same batch"
  pixels = STRIDE * theirs[1] + STRIDE - 1
  return (f"{message}; distillation compares cell with cell, so both networks need the same crop side: pass "
          f"--config.model.{branch}_side={pixels} for the student, or use a teacher trained with {branch}_side="
          f"{STRIDE * ours[1] + STRIDE - 1}")
