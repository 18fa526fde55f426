"""The benchmark command: arithmetic by hand, tables, and every measurement at its smallest."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small
from benchmarks import (
  cases,
  convolutions,
  footprint,
  loop,
  report,
  scaling,
  step,
  timing,
  tracking,
  weak_scaling,
)
from benchmarks.memory import breakdown
from configs import base
from input_pipeline.errors import UserError
from input_pipeline.sequences import FrameShape

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHIP = scaling.Machine("4 x H100", "NVIDIA H100 80GB HBM3", chips=4, chips_per_host=2, memory=2**33, bandwidth=1e9,
                       vcpus_per_host=8)


def tiny(teacher=False):
  config = small.config(**small.PLAIN)
  return cases.case("tiny", config, "teacher", small.config(**small.PLAIN)) if teacher else cases.case("tiny", config)


# --- tables


def test_calls_are_timed_in_turns():
  order = []
  times = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warmup=2)
  assert order == ["a", "b"] * 5
  assert [len(times[name]) for name in "ab"] == [3, 3]
  assert timing.median([3.0, 1.0, 2.0]) == 2.0
  assert timing.spread([0.001, 0.002, 0.003, 0.004, 0.005]) == "2-4"


@pytest.mark.parametrize("value, expected", [
    (None, ""), (3, "3"), ("x", "x"), (True, "True"), (0.0, "0"), (12345.6, "12346"), (0.0123456, "0.01235"),
    (12.0, "12.00")])
def test_cells(value, expected):
  assert report.cell(value) == expected


def test_report_prints_row_by_row_and_keeps_single_timings(tmp_path):
  lines, path = [], tmp_path / "out.json"
  made = report.Report("step", 3, str(path), facts=report.machine(), write=lines.append)

  def rows():
    yield {"case": "a", "ms": 1.5, "seconds": [1, 2, 3]}
    assert lines[-1] == "| a | 1.500 |" and len(json.loads(path.read_text())["tables"][0]["rows"]) == 1
    yield {"case": "b", "ms": None, "seconds": []}

  made.table("Title", rows())
  assert lines[-4:] == ["| case | ms |", "| --- | ---: |", "| a | 1.500 |", "| b |  |"]
  content = json.loads(path.read_text())
  assert content["tables"][0]["rows"][0]["seconds"] == [1, 2, 3]
  assert content["machine"]["usable_cores"] == len(os.sched_getaffinity(0))
  assert jax.devices()[0].device_kind in lines[0] and jax.__version__ in lines[0]


# --- on paper


def test_bytes_of_collectives():
  """A ring of 4: each chip sends 3 of 4 parts, once per reduce-scatter and once per all-gather."""
  assert scaling.all_reduce_bytes(8e6, 4) == 12e6
  assert scaling.fsdp_bytes(8e6, 4) == 18e6


def test_roofline_by_hand():
  """1 GFLOP per pair, 10 pairs per chip at 40 % of 989 TFLOP/s; 12 MB over 1 GB/s; 5 exchanges of 20 microseconds."""
  sizes = {"trained": 24e6, "gradients": 8e6, "teacher": 4e6}
  row = scaling.roofline(CHIP, 1e9, sizes, 10, fsdp=False, exchanges=5)
  compute, communication = 1e10 / (0.4 * 989e12), 0.012 + 0.0001
  assert row["compute (ms)"] == pytest.approx(1e3 * compute)
  assert row["communication (ms)"] == pytest.approx(1e3 * communication)
  rate = 40 / (compute + communication)
  assert row["pairs/s"] == pytest.approx(rate)
  assert row["hosts"] == 2 and row["input per host (pairs/s)"] == pytest.approx(rate / 2)
  assert row["cores per host needed"] == pytest.approx(rate / 2 / 1100) and row["cores per host"] == 4
  assert row["state (GiB/chip)"] == pytest.approx(36e6 / 2**30)
  sharded = scaling.roofline(CHIP, 1e9, sizes, 10, fsdp=True)
  assert sharded["sent per chip (MB)"] == pytest.approx(18 + 0.75 * 4)
  assert sharded["state (GiB/chip)"] == pytest.approx(9e6 / 2**30)


def test_published_machines():
  """Peak of the pods as Google prints them: 50.63 PFLOP/s (v5e-256); a v5p-512 has 64 hosts."""
  machines = {m.name: m for m in scaling.MACHINES}
  v5e, v5p = machines["v5e-256"], machines["v5p-512"]
  assert v5e.chips * scaling.throughput.peak_flops(v5e.kind, "bfloat16") == pytest.approx(50.63e15, rel=0.01)
  assert v5e.chips * v5e.bandwidth == pytest.approx(51.2e12)  # "All-reduce bandwidth per pod".
  assert v5p.chips // v5p.chips_per_host == 64


def test_exchanges_of_batch_statistics():
  """The plain network: stem, 4 blocks of two, 3 necks; twice (branches) forward and backward."""
  case = cases.case("tiny", small.config(**small.PLAIN, norm="batch"))
  assert scaling.small_exchanges(case) == (1 + 8 + 3) * 4
  case.config.model.backbone.remat = True
  assert scaling.small_exchanges(case) == (1 + 8 + 3) * 4 + 8 * 2
  assert scaling.small_exchanges(tiny()) == 0


def test_paper_needs_no_device():
  rows = list(scaling.rows([tiny(teacher=True)], [2]))
  assert len(rows) == 6 and all(row["case"] == "tiny <- teacher" for row in rows)
  sizes = scaling.state_bytes(tiny(teacher=True))
  assert sizes["gradients"] > sizes["teacher"] > 0  # The adapters are trained too.


def test_resident_data():
  """By hand: three windows of 20 px to each side of a 10-px target are 120 px, in rows of one unit of 128 bytes."""
  config, square = base.get_config(), lambda size, frames=1: dict(
      frames=frames, shape=FrameShape(512, 640), sizes=(size, size), quantiles=(0, 1))
  assert footprint.resident_bytes(config, **square(10, 1000)) == pytest.approx(1000 * 128 * 120)
  assert footprint.resident_bytes(config, **square(500)) == 640 * 512


# --- cases


def test_overrides_reach_student_and_teacher():
  (case,) = cases.distillations(["r18"], {"model.features": 48})
  assert case.config.model.features == case.teacher_config.model.features == 48
  assert case.config.distiller.kind == "contextual"
  (alone,) = cases.distillations(["shipped_r18"], {})
  assert (alone.name, alone.teacher_config, alone.config.distiller.kind) == ("shipped:r18", None, "none")
  with pytest.raises(UserError, match="config.model.backbone.blocks"):
    cases.distillations(["lite"], {"model.backbone.blocks": (1, 1, 1, 1)})
  with pytest.raises(UserError, match="r34"):
    cases.distillations(["r34"], {})
  with pytest.raises(UserError, match="no such config"):
    cases.load("configs/nothing.py")


# --- measured


@pytest.mark.slow
def test_step_memory_and_loop():
  case = tiny().with_batch(8, kind="mesh")
  sweep = list(step.rows([case], [8], repeats=2))
  memory, looped = [breakdown(row, case.config) for row in sweep], list(loop.rows([case], 8, repeats=2))
  assert [row["batch"] for row in sweep] == [8]
  for row in sweep:
    assert row["note"] == "" and row["MFU"] is None and len(row["seconds"]) == 2
    assert row["pairs/s"] == pytest.approx(row["batch"] / (row["step (ms)"] / 1e3))
    assert row["TFLOP/s"] == pytest.approx(row["pairs/s"] * row["GFLOP/pair"] / 1e3)
  for row in memory:
    parts = sum(row[name] for name in footprint.PURPOSES if name != "total")
    assert row["parameters"] == row["ema"] and row["total"] == pytest.approx(parts, rel=0.05)
    assert row["inputs"] * 2**30 * jax.device_count() == pytest.approx(8 * (63**2 + 127**2 + 4 * (2 + 4 + 1)))
  assert looped[0]["loop/bare"] == pytest.approx(looped[0]["loop (ms)"] / looped[0]["bare step (ms)"])


@pytest.mark.end_to_end
def test_tracking_rows():
  found = list(tracking.rows([tiny()], [2], frames=3, repeats=2))
  assert [(row["tracked"], row["frames from"], row["streams"]) for row in found] == [
      ("one by one", "memory", 1), ("lockstep", "memory", 2), ("lockstep", "JPEG files", 2)]
  for row in found:
    assert row["frames/s"] == pytest.approx(3 * row["streams"] / np.median(row["seconds"]))
    assert row["GFLOP/s"] == pytest.approx(row["frames/s"] * row["GFLOP/frame"]) and row["share of the peak"] is None
  memory = list(tracking.memory_rows(tiny(), 2, frames=2))
  assert [row["frames per sequence"] for row in memory] == [2, 8, 32]
  assert all(row["host memory (GiB)"] > 0 for row in memory)


def test_a_sweep_ends_where_memory_does(monkeypatch):
  monkeypatch.setattr(step, "initial_values", lambda case: None)

  class TooLarge:
    def __init__(self, case, initial):
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")

  monkeypatch.setattr(step, "BareStep", TooLarge)
  rows = list(step.rows([tiny()], [8, 16], repeats=1))
  assert [(row["batch"], row["note"]) for row in rows] == [(8, "out of memory")]
  assert [row["case"] for row in loop.rows([], 8, 1)] == []


@pytest.mark.slow
def test_layouts_on_virtual_devices(monkeypatch):
  monkeypatch.setattr(weak_scaling, "LAYOUTS", ("pmap",))
  (row,) = weak_scaling.measured(tiny().config, 4, 1, [2])
  assert row["batch"] == 8 and row["pmap / one device"] == pytest.approx(row["pmap (ms)"] / row["one device (ms)"])
  assert row["pmap, per device (ms)"] == pytest.approx(row["pmap (ms)"] / 2)


@pytest.mark.parametrize("name", convolutions.SHAPES)
def test_all_forms_of_a_convolution_agree(name):
  """Values and gradients, in the layout of the first form, at a small size of the same kind."""
  shape = convolutions.SHAPES[name]
  channels = dict(inputs=min(shape.inputs, 4), outputs=min(shape.outputs, 4))
  kernel = shape.kernel if shape.kind == "correlation" else min(shape.kernel, 3)
  shape = dataclasses.replace(shape, side=13, kernel=kernel, **channels)

  def back(array, axes, order):
    return np.asarray(array).transpose([axes.index(a) for a in order])

  results = []
  for function, x_axes, w_axes in convolutions.forms(shape).values():
    x, w = convolutions.arrays(shape, 2, x_axes, w_axes)
    out, pull = jax.vjp(function, jnp.asarray(x), jnp.asarray(w))
    by_x, by_w = pull(jnp.ones_like(out))
    by_w = by_w[:, :, None] if w_axes == "HWO" else by_w
    w_axes = "HWIO" if w_axes == "HWO" else w_axes
    order = "NHWO" if shape.kind == "correlation" else "HWIO"
    results.append((back(out, x_axes, "NHWC"), back(by_x, x_axes, "NHWC"), back(by_w, w_axes, order)))
  assert results[0][0].shape == (2, shape.out_side, shape.out_side, shape.outputs) and len(results) > 1
  for other in results[1:]:
    for a, b in zip(results[0], other, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_gflop_of_a_convolution():
  """siamdff_r50's dilated 3x3: 31 x 31 positions, 256 x 256 channels, 9 taps."""
  shape = convolutions.SHAPES["3x3 dilated 2 (r50, r18 stage 3)"]
  assert shape.gflop(2) == pytest.approx(2 * 2 * 31 * 31 * 256 * 256 * 9 / 1e9)


def test_flags_are_tried_in_processes_of_their_own():
  name = "1x1 48 to 192 (lite stage 3)"
  good, bad = convolutions.flag_rows(1, 1, [name], flags=("", "--xla_there_is_no_such_flag=1"))
  assert good["convolution"] == name and good["forward (ms)"] > 0 and good["note"] == ""
  assert bad["forward (ms)"] is None and bad["note"] and good.keys() - {"seconds"} == bad.keys()


# --- the script


def run(*arguments):
  environment = {**os.environ, "OMP_NUM_THREADS": "1"}
  return subprocess.run([sys.executable, str(ROOT / "scripts" / "benchmark.py"), *arguments], capture_output=True,
                        text=True, timeout=300, env=environment, check=False)


@pytest.mark.end_to_end
def test_script(tmp_path):
  overrides = {"template_side": 63, "search_side": 127, "features": 16, "heads": 2, "tower_depth": 1, "norm": "group",
               "dtype": "float32", "backbone.widths": "(8,8,8,8)", "backbone.blocks": "(1,1,1,1)",
               **dict.fromkeys(small.PLAIN, "False")}
  done = run("step", "--config", str(ROOT / "configs" / "siamdff_r18.py"), "--batch=2", "--repeats=1",
             f"--json={tmp_path / 'out.json'}", *(f"--config.model.{key}={value}" for key, value in overrides.items()))
  assert done.returncode == 0, done.stderr
  assert "| siamdff_r18 | 2 | float32 |" in done.stdout and "usable cores" in done.stdout
  sweep, memory = json.loads((tmp_path / "out.json").read_text())["tables"]
  assert sweep["rows"][0]["pairs/s"] > 0 and len(memory["rows"]) == 1


@pytest.mark.parametrize("arguments, message", [
    ((), "no command given, expected one of accelerator, step,"), (("speed",), "'speed' is not a command"),
    (("step", "fast"), "unexpected argument 'fast'"), (("accelerator", "--cases=r34"), "'r34' is not one of r50"),
    (("accelerator", "--json=x"), "--out"), (("depthwise", "--forms=fast"), "expected some of shift, rows, grouped"),
    (("population", "--teacher=siamdff_r50"), "without distillation")])
def test_script_refuses(arguments, message):
  done = run(*arguments)
  assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_pooling_rows():
  row, = convolutions.pooling_rows(2, [(1, 9, 9, 2)])
  assert row["max pooling of"] == "1x9x9x2" and len(row["seconds"]["slices, gradient (ms)"]) == 2
  assert all(row[f"{form}, {kind} (ms)"] > 0 for form in ("flax", "slices") for kind in ("forward", "gradient"))
