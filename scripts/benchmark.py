#!/usr/bin/env python3
"""Measures speed and memory: medians over repeats as a table under the machine's facts, and as JSON.

  scripts/benchmark.py COMMAND [--config configs/siamdff_r50.py] [--config.KEY=VALUE] [--teacher siamdff_r50] \\
      [--batch 32,64] [--repeats 9] [--json FILE]

  accelerator   all that is worth knowing of a GPU or TPU, in --minutes: see below
  step          the bare training step of --config (distilled from --teacher): pairs/s, MFU, memory, over batch sizes
  kernels       where that step's time goes on the device, from a trace: by part of the network, kind, single kernel
  loop          the training loop against the bare step, data on the device
  memory        predicted against measured memory of the training step
  scaling       on paper for 8 H100, v5e-256 and v5p-512 (--batch: per chip); layouts on virtual CPU devices
  input         reading, decoding and cropping, pairs/s per core
  saving        checkpoints: what a save costs the training
  scoring       scripts/compare.py on 120 sequences of 1000 frames and 21 trackers, whole processes
  tracking      frames/s of tracking in lockstep over numbers of streams, host memory (--config, else --cases)
  population    8 trainings in one program against one after the other
  pytorch       our network against the same in PyTorch
  convolutions  XLA's convolutions on the networks' shapes, other forms, dtypes and compiler flags
  depthwise     the forms of every depthwise operation
  tpu           the training step compiled for --topology without a TPU (--config, else --cases; --batch: per chip):
                seconds to compile, memory, traffic, kernels by module, the compiler's own estimate of time

accelerator runs these stations, each a process of its own with NAME.json, .txt and .log in --out; a second start goes
on where the first has ended, and a station that takes longer than there is time is left out. For each of --cases: step
(over --batch); kernels; then depthwise, its grouped form with a limit, as XLA may try out algorithms forever; for each
case pytorch's training step, where PyTorch is installed; population of the last case; for each case tracking; loop of
the last case; for each case pytorch's search pass; last of all the commands in --then, which get SIGTERM when the time
is over.
"""

import os
import pathlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

import _path  # noqa: F401  (makes the project importable when it is not installed)
from input_pipeline.errors import UserError
from siamdff_jax import cli

if TYPE_CHECKING:
  from benchmarks.cases import Case

_R50 = pathlib.Path(__file__).resolve().parent.parent / "configs" / "siamdff_r50.py"
_CONFIG = cli.define_config("What is measured; single values are set by --config.KEY=VALUE (for accelerator: in "
                            "student and teacher of every case).", str(_R50))
_TEACHER = flags.DEFINE_string("teacher", "", "Config of a teacher with random weights, configs/NAME.py or NAME, "
                               "with the same --config.KEY=VALUE as the student. Empty: no distillation.")
_CASES = flags.DEFINE_list("cases", None, "For accelerator, scaling, tpu, of r50, r18, lite (students of r50), "
                           "shipped_r18, shipped_lite; for tracking: the students alone. Default: the first three; for "
                           "accelerator r50,shipped_r18,shipped_lite.")
_BATCH = flags.DEFINE_list("batch", None, "Batch sizes, ascending. Default: 32,64,128,256; 64,256 for accelerator; the "
                           "config's for memory, loop, kernels and population; 1 for convolutions; 32 for scaling; the "
                           "command's own for pytorch and depthwise; 64 for tpu.")
_REPEATS = flags.DEFINE_integer("repeats", 9, "Counted timings of each.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "File for the same with all single timings.")
_STREAMS = flags.DEFINE_list("streams", [1, 8, 32, 128], "For tracking: sequences in lockstep, ascending.")
_FRAMES = flags.DEFINE_integer("frames", 64, "For tracking: frames per sequence.", lower_bound=2)
_WORKDIR = flags.DEFINE_string("workdir", "", "For saving: folder for the checkpoints, on the disk that is to be "
                               "measured. Default: the system's temporary folder.")
_SHAPES = flags.DEFINE_list("shapes", [], "For convolutions, depthwise: only those whose name contains one of these.")
_FORMS = flags.DEFINE_list("forms", ["shift", "rows", "grouped"], "For depthwise: these, measured in turns.")
_PASSES = flags.DEFINE_list("passes", ["search", "forward", "training"], "For pytorch: these.")
_OUT = flags.DEFINE_string("out", "accelerator", "For accelerator: folder of its results; what is there is not "
                           "measured again.")
_MINUTES = flags.DEFINE_float("minutes", 25, "For accelerator: the limit; what runs then is ended within another "
                              "minute.", lower_bound=0)
_THEN = flags.DEFINE_string("then", "", "For accelerator: file with a command per line, such as scripts/train.py ..., "
                            "for the time that is left. They run one after the other; each must resume by itself.")
_XLA_FLAGS = flags.DEFINE_bool("xla_flags", True, "For convolutions: also XLA's flags, one process each.")
_VIRTUAL_CONFIG = flags.DEFINE_string("virtual_config", "quickstart:teacher", "For scaling: the config that runs on "
                                      "virtual CPU devices.")
_VIRTUAL_PAIRS = flags.DEFINE_integer("virtual_pairs", 4, "For scaling: pairs per virtual device.", lower_bound=1)
_VIRTUAL_DEVICES = flags.DEFINE_list("virtual_devices", [1, 2, 4, 8], "For scaling: their numbers.")
_TOPOLOGY = flags.DEFINE_list("topology", ["v5e:2x2"], "For tpu: chips and how they are connected, v5e:16x16 or "
                              "v5p:4x4x8.")
_LAYOUTS = flags.DEFINE_list("layouts", ["pmap"], "For tpu: of pmap, mesh, fsdp and population (one member per chip of "
                             "a host).")
_SLOW_KERNELS = flags.DEFINE_bool("slow_kernels", False, "For tpu: also which kernels take longest to compile, which "
                                  "then takes nearly twice as long.")
_COMPILE_LIMIT = flags.DEFINE_integer("compile_limit", 1200, "For tpu: seconds after which a case is given up.",
                                      lower_bound=1)


_Tables = Iterator[tuple[str, Iterable[dict]]]  # (title, rows) one after the other.


def _batches(default: Iterable[int]) -> list[int]:
  return cli.whole_numbers(_BATCH) or sorted(default)


def _config_flag() -> flags.Flag:
  return flags.FLAGS["config"]


def _case() -> "Case":
  """--config, distilled from --teacher."""
  from benchmarks import cases

  name, _ = cases.load(config_flags.get_config_filename(_config_flag()))
  if not _TEACHER.value:
    return cases.case(name, _CONFIG.value)
  teacher, config = cases.load(_TEACHER.value)
  overrides = config_flags.get_override_values(_config_flag())
  return cases.case(name, _CONFIG.value, teacher, cases.overridden(config, overrides))


def _distillations(default: Iterable[str] = ("r50", "r18", "lite")) -> list["Case"]:
  from benchmarks import cases

  return cases.distillations(_CASES.value or default, config_flags.get_override_values(_config_flag()))


def _accelerator() -> None:
  from benchmarks import accelerator, campaign

  if _JSON.value:
    raise UserError("--json: accelerator writes its results into a folder, --out")
  overrides = config_flags.get_override_values(_config_flag())
  networks = _CASES.value or accelerator.NETWORKS
  _distillations(networks)  # For their errors.
  stations = accelerator.stations(networks, overrides, _batches((64, 256)), cli.whole_numbers(_STREAMS), _FRAMES.value,
                                  _REPEATS.value)
  then = campaign.trainings(_THEN.value) if _THEN.value else []
  campaign.run([*stations, *then], _OUT.value, _MINUTES.value)


def _step() -> _Tables:
  from benchmarks import memory, step

  case, kept = _case(), []

  def rows() -> Iterator[dict]:
    for row in step.rows([case], _batches((32, 64, 128, 256)), _REPEATS.value):
      kept.append(row)
      yield row

  yield "Training step", rows()
  yield "Its memory, GiB per device", (memory.breakdown(row, case.config) for row in kept)


def _kernels() -> _Tables:
  from benchmarks import kernels

  for batch in _batches([_CONFIG.value.train.batch_size]):
    yield from kernels.tables(_case(), batch)


def _population() -> _Tables:
  from benchmarks import population

  if _TEACHER.value:
    raise UserError("--teacher: population is measured without distillation")
  for batch in _batches([_CONFIG.value.train.batch_size]):
    yield "", population.rows(_case(), batch, _REPEATS.value)


def _loop() -> _Tables:
  from benchmarks import loop

  for batch in _batches([_CONFIG.value.train.batch_size]):
    yield "", loop.rows([_case()], batch, _REPEATS.value)


def _memory() -> _Tables:
  from benchmarks import memory

  yield "GiB on one device", memory.rows([_case()], _batches([_CONFIG.value.train.batch_size]))


def _scaling() -> _Tables:
  from benchmarks import cases, scaling, weak_scaling

  yield f"On paper, at {scaling.MFU:.0%} MFU, nothing overlapped", scaling.rows(_distillations(), _batches([32]))
  _, config = cases.load(_VIRTUAL_CONFIG.value)
  virtual = cases.case("virtual", config).config
  yield "On virtual CPU devices", weak_scaling.rows(virtual, _VIRTUAL_PAIRS.value, _REPEATS.value,
                                                    cli.whole_numbers(_VIRTUAL_DEVICES))


def _input() -> _Tables:
  from benchmarks import input as feeding

  yield "", feeding.rows(_CONFIG.value, _REPEATS.value)


def _saving() -> _Tables:
  from benchmarks import saving

  if _WORKDIR.value and not os.path.isdir(_WORKDIR.value):
    raise UserError(f"--workdir={_WORKDIR.value}: no such folder, expected one on the disk that is to be measured")
  with tempfile.TemporaryDirectory(dir=_WORKDIR.value or None) as workdir:
    yield "", saving.rows(_CONFIG.value, workdir, _REPEATS.value)


def _scoring() -> _Tables:
  from benchmarks import scoring

  with tempfile.TemporaryDirectory() as folder:
    yield "", scoring.rows(folder, _REPEATS.value)


def _tracking() -> _Tables:
  from benchmarks import tracking

  networks = [_case()] if _config_flag().present else _distillations()
  streams = cli.whole_numbers(_STREAMS)
  yield "640x512 frames, random weights", tracking.rows(networks, streams, _FRAMES.value, _REPEATS.value)
  yield "Host memory over the length of sequences", tracking.memory_rows(networks[-1], max(streams), _FRAMES.value)


def _pytorch() -> _Tables:
  from benchmarks import pytorch

  for batch in _batches([0]):
    yield "", pytorch.rows(_CONFIG.value, batch or None, _REPEATS.value, _chosen(_PASSES, pytorch.PASSES))


def _convolutions() -> _Tables:
  from benchmarks import convolutions

  names = _shapes(convolutions.SHAPES)
  for batch in _batches([1]):
    yield "", convolutions.rows(batch, _REPEATS.value, names)
  if not _SHAPES.value:
    yield "Max pooling", convolutions.pooling_rows(_REPEATS.value)
  for batch in _batches([1]):
    if _XLA_FLAGS.value:
      yield "XLA's own form (NHWC) under compiler flags", convolutions.flag_rows(batch, _REPEATS.value, names)


def _depthwise() -> _Tables:
  from benchmarks import depthwise

  shapes, forms = _shapes(depthwise.SHAPES), _chosen(_FORMS, depthwise.FORMS)
  for batch in _batches([0]):
    yield "", depthwise.rows(_REPEATS.value, forms, batch or None, shapes)


def _shapes(known: dict) -> dict:
  """Those of `known` that --shapes asks for."""
  found = {name: shape for name, shape in known.items()
           if not _SHAPES.value or any(part in name for part in _SHAPES.value)}
  if not found:
    raise UserError(f"--shapes={','.join(_SHAPES.value)}: expected parts of {'; '.join(known)}")
  return found


def _chosen(flag: flags.FlagHolder, known: Collection[str]) -> list[str]:
  if not flag.value or set(flag.value) - set(known):
    raise UserError(f"--{flag.name}={','.join(flag.value)}: expected some of {', '.join(known)}")
  return flag.value


def _tpu() -> _Tables:
  from benchmarks import tpu, tpu_program

  for topology in _TOPOLOGY.value:
    tpu_program.devices(topology)  # For its errors.
  networks = [_case()] if _config_flag().present else _distillations()
  return tpu.tables(networks, _TOPOLOGY.value, _chosen(_LAYOUTS, tpu_program.LAYOUTS), _batches([64]),
                    _COMPILE_LIMIT.value, _SLOW_KERNELS.value)


_COMMANDS = {"accelerator": _accelerator, "step": _step, "kernels": _kernels, "loop": _loop, "memory": _memory,
             "scaling": _scaling, "input": _input, "saving": _saving, "scoring": _scoring, "tracking": _tracking,
             "population": _population, "pytorch": _pytorch, "convolutions": _convolutions, "depthwise": _depthwise,
             "tpu": _tpu}


def main(command: str) -> None:
  from benchmarks.report import Report
  from siamdff_jax.config_check.experiment import check

  check(_CONFIG.value)
  for numbers in (_BATCH, _STREAMS, _VIRTUAL_DEVICES):  # Before hours of measuring.
    cli.whole_numbers(numbers)
  if command == "accelerator":
    _accelerator()  # Its stations make reports; here nothing may look for devices.
    return
  if command == "tracking":
    from siamdff_jax.tracking.runner import one_device_per_core

    one_device_per_core()  # Before `Report` looks for devices.
  if command == "tpu":
    from benchmarks import tpu_program

    tpu_program.prepare()  # Likewise.
  report = Report(command, 1 if command == "tpu" else _REPEATS.value, _JSON.value)
  for title, rows in _COMMANDS[command]():
    report.table(title, rows)


if __name__ == "__main__":
  cli.run(main, _COMMANDS)
