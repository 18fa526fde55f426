"""The training step compiled for TPUs: reading a compiled program, counted by hand; and one small real case."""

import importlib.util

import jax
import numpy as np
import pytest

import small
from benchmarks import cases, hlo, tpu, tpu_kernels
from benchmarks.tpu_program import LAYOUTS
from siamdff_jax.parallel import layouts

TEXT = """HloModule jit_step, is_scheduled=true, entry_computation_layout={()->f32[]}

FileNames
1 "/somewhere/siamdff_jax/losses.py"
2 "/somewhere/optax/_src/base.py"

FunctionNames
1 "task_losses.<locals>.over_positives"
2 "<lambda>"

FileLocations
1 {file_name_id=1 function_name_id=1 line=21 end_line=21 column=8 end_column=9}
2 {file_name_id=2 function_name_id=2 line=3 end_line=3 column=8 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%inside (p: f32[9,64]) -> f32[9,64] {
  %p = f32[9,64]{1,0:T(8,128)} parameter(0)
  ROOT %negate.1 = f32[9,64]{1,0:T(8,128)} negate(%p)
}

%body (arg: (s32[], f32[9,64])) -> (s32[], f32[9,64]) {
  %arg = (s32[]{:T(128)}, f32[9,64]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %x = f32[9,64]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i, %one)
  %fusion.1 = f32[9,64]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%inside, \
metadata={op_name="jit(step)/jvp(SiamDFF)/SiamDFF.track/sten_2/search_merge/conv/while/body/neg" stack_frame_id=1}, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  ROOT %out = (s32[]{:T(128)}, f32[9,64]{1,0:T(8,128)}) tuple(%next, %fusion.1)
}

%condition (arg.1: (s32[], f32[9,64])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, f32[9,64]{1,0:T(8,128)}) parameter(0)
  %turns = s32[]{:T(128)} constant(7)
  %j = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %turns), direction=LT
}

%short (a: f32[9,64]) -> f32[9,64] {
  ROOT %a = f32[9,64]{1,0:T(8,128)} parameter(0)
}

%long (b: f32[9,64]) -> f32[9,64] {
  %b = f32[9,64]{1,0:T(8,128)} parameter(0)
  ROOT %multiply.1 = f32[9,64]{1,0:T(8,128)} multiply(%b, %b), metadata={op_name="jit(step)/cond/mul" \
stack_frame_id=2}, backend_config={"window_config":{"estimated_cycles":"500"}}
}

ENTRY %main (x.1: f32[9,64]) -> f32[9,64] {
  %x.1 = f32[9,64]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (f32[9,64]{1,0:T(8,128)}, f32[9,64]{1,0:T(8,128)}) all-reduce-start(%x.1), to_apply=%sum
  %done = f32[9,64]{1,0:T(8,128)} all-reduce-done(%start)
  %tuple.1 = (s32[]{:T(128)}, f32[9,64]{1,0:T(8,128)}) tuple(%zero, %done)
  %while.1 = (s32[]{:T(128)}, f32[9,64]{1,0:T(8,128)}) while(%tuple.1), condition=%condition, body=%body
  %y = f32[9,64]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
  %reverse.1 = f32[9,64]{1,0:T(8,128)} reverse(%y), dimensions={0}
  ROOT %conditional.1 = f32[9,64]{1,0:T(8,128)} conditional(%zero, %reverse.1, %reverse.1), \
branch_computations={%short, %long}
}
"""


def test_what_runs():
  """By hand: the start of the all-reduce, 7 turns of one fusion, a reversal, and the longer branch."""
  module = hlo.Module(TEXT)
  kernels = [(kernel.operation, kernel.cycles, times) for kernel, times in module.kernels()]
  assert kernels == [("all-reduce-start", None, 1), ("fusion", 1000, 7), ("reverse", None, 1), ("multiply", 500, 1)]
  assert module.collectives() == {"all-reduce": (1, 9 * 64 * 4)}
  assert module.unknown_loops == 0


def test_kernels_by_module():
  found = {row["module"]: row for row in tpu_kernels.by_module(hlo.Module(TEXT), 1e6)}
  assert list(found) == ["SiamDFF/sten_2/search_merge", "compiler's own", "losses.py:over_positives"]
  assert found["SiamDFF/sten_2/search_merge"] == {
      "module": "SiamDFF/sten_2/search_merge", "kernels": 7, "fusions": 1, "of the gradient": 0, "in loops": 7,
      "estimate (ms)": 7.0, "not estimated": ""}
  assert found["compiler's own"]["not estimated"] == "1 all-reduce-start, 1 reverse"


@pytest.mark.parametrize("op_name, module", [
    ("jit(_fun)/shard_map/transpose(jvp(SiamDFF))/SiamDFF.track/SiamDFF._features/backbone/stem/Norm_0/mul",
     "SiamDFF/backbone/stem"),
    ("jit(step)/teacher/teacher.track/head/add", "teacher/head"), ("jit(step)/jvp(SiamDFF)/SiamDFF.track/ab,bc->ac/dot",
                                                                   "SiamDFF"), ("jit(step)/cond/add", "")])
def test_module_of_an_operation(op_name, module):
  assert tpu_kernels.module_path(op_name) == module


@pytest.mark.parametrize("shape, sizes", [
    ("bf16[64,15,15,64]{3,2,1,0:T(8,128)(2,1)}", [(64 * 15 * 15 * 64 * 2, 64 * 15 * 16 * 128 * 2)]),
    ("bf16[64,15,15,64]{3,0,2,1:T(8,128)(2,1)S(1)}", [(64 * 15 * 15 * 64 * 2, 15 * 15 * 64 * 128 * 2)]),
    ("(f32[5]{0:T(256)}, pred[]{:T(512)})", [(20, 1024), (1, 1)]), ("f32[3]{0:T(8,128)}", [(12, 8 * 128 * 4)]),
    ("f32[2,3]{1,0}", [(24, 24)])])
def test_padding_of_tiles(shape, sizes):
  assert hlo.sizes_of(shape) == sizes


@pytest.mark.parametrize("kind, fsdp", [("pmap", False), ("mesh", False), ("mesh", True)])
def test_lowered_from_shapes_as_from_arrays(kind, fsdp):
  """What the layout lowers from shapes is what it compiles when it is called with arrays."""
  config = small.config().layout
  config.update(kind=kind, fsdp=fsdp)
  layout = layouts.make_layout(config, 8, jax.devices()[:4])
  state, batch = {"w": np.ones((128, 256), np.float32)}, {"x": np.ones((8, 128), np.float32)}

  def step(state, batch, teacher):
    return {"w": state["w"] + (batch["x"] @ (state["w"] * teacher)).sum()}, {}

  def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

  teacher = np.float32(2)
  lowered = layout.lower(step, (shapes(state), shapes(batch), {}, shapes(teacher)))
  placed = layout.put_state(state), layout.put_sharded(batch), {}, layout.put_state(teacher)
  assert lowered.as_text() == layout.program(step).lower(*placed).as_text()


def test_seconds_of_kernels(tmp_path):
  """From when the compiler began with one until it began with the next."""
  for start, name in ((5, "TLP-00"), (5, "<late-initialization>-00"), (6, "reverse.1-00"), (16, "fusion.1-00"),
                      (46, "other.1-03")):
    (tmp_path / f"{(10**9 + start) * 10**9}-{name}-original.txt").write_text("")
  (tmp_path / f"{(10**9 + 5) * 10**9}-TLP-hlo.txt").write_text(TEXT)
  rows = list(tpu_kernels.slow_to_compile(str(tmp_path), ended=1e9 + 50))
  assert [(row["kernel"], row["compile (s)"]) for row in rows] == [
      ("fusion.1", 30), ("reverse.1", 10), ("other.1", 4)]
  assert rows[0]["part"] == "SiamDFF/sten_2/search_merge" and rows[0]["result"] == "f32[9,64]"
  assert sum(row["share"] for row in rows) == pytest.approx(1)


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs requirements-tpu.txt")
@pytest.mark.parametrize("layout", [layout if layout == "pmap" else pytest.param(layout, marks=pytest.mark.slow)
                                    for layout in LAYOUTS])
def test_a_small_case(layout):
  config = small.config(**small.PLAIN)
  found = tpu.tables([cases.case("tiny", config)], ["v5e:2x2"], [layout], [2], limit=300)
  (row,) = next(found)[1]
  assert row["note"] == "" and row["devices"] == 4 and 0 < row["memory (GiB)"] < row["of (GiB)"] == 15.75
  assert row["kernels"] > row["fusions"] > 0 and row["pairs/s"] == pytest.approx(8e3 / row["estimate (ms)"])
  # Members exchange nothing; the others add up gradients.
  assert ("none" in row["collectives"]) == (layout == "population")
  (_, modules), = found
  assert sum(module["kernels"] for module in modules) == row["kernels"]
