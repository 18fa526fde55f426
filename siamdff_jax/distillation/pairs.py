"""What is compared with what: student and teacher features of both branches and every backbone level."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from input_pipeline.errors import UserError
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
    """Such as "search3"."""
    return f"{self.branch}{self.level}"


def feature_pairs(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[Pair]:
  """The pairs of two `SiamDFF` outputs, in the order template 2, 3, 4, search 2, 3, 4.

  Raises:
    UserError: the networks have other levels or grids.
    ValueError: they have not seen the same batch.
  """
  pairs = []
  for branch in BRANCHES:
    ours, theirs = student[f"{branch}_backbone"], teacher[f"{branch}_backbone"]
    if sorted(ours) != sorted(theirs):
      raise UserError(f"the student has {branch} levels {sorted(ours)}, the teacher {sorted(theirs)}: they must agree")
    for level in sorted(ours):
      _require_same_grid(branch, level, ours[level].shape, theirs[level].shape)
      pairs.append(Pair(branch, level, ours[level].astype(jnp.float32),
                        jax.lax.stop_gradient(theirs[level].astype(jnp.float32))))
  return pairs


def _require_same_grid(branch: str, level: int, ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
  """Compares the shapes [B, H, W, C] of the student's and the teacher's features."""
  message = f"{branch} features of level {level} are {ours} in the student but {theirs} in the teacher [B, H, W, C]"
  if ours[0] != theirs[0]:
    raise ValueError(f"{message}; both networks must see the same batch")
  if ours[:3] != theirs[:3]:
    pixels = STRIDE * theirs[1] + STRIDE - 1
    raise UserError(f"{message}; distillation compares cell with cell, so both networks need the same crop side: pass "
                    f"--config.model.{branch}_side={pixels} for the student, or use a teacher trained with "
                    f"{branch}_side={STRIDE * ours[1] + STRIDE - 1}")
