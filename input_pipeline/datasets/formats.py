"""The formats by name."""

import types
from collections.abc import Mapping

from input_pipeline.datasets import (
    antiuav,
    antiuav410,
    cst_antiuav,
    dtb70,
    got10k,
    lasot,
    lsotb_tir,
    otb,
    plain,
    ptb_tir,
    uav123,
)
from input_pipeline.datasets.layout import Reader
from input_pipeline.errors import UserError

FORMATS: Mapping[str, Reader] = types.MappingProxyType({
    "antiuav": antiuav,
    "antiuav410": antiuav410,
    "cst_antiuav": cst_antiuav,
    "lsotb_tir": lsotb_tir.READER,
    "ptb_tir": ptb_tir.READER,
    "got10k": got10k,
    "lasot": lasot,
    "otb": otb,
    "uav123": uav123,
    "dtb70": dtb70.READER,
    "plain": plain,
})


def reader(format: str) -> Reader:
  """What reads a format; UserError with the known ones when there is none of that name."""
  if format not in FORMATS:
    raise UserError(f"unknown format {format!r}, expected one of {', '.join(FORMATS)}")
  return FORMATS[format]
