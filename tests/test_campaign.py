"""Campaigns of measurements: what runs, what is not run again, what a failure and the end of time do; and kernels."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

import small
from benchmarks import accelerator, campaign, depthwise, kernels, population, timing
from benchmarks.cases import case
from input_pipeline.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASURES = """
import json, pathlib, sys
path = pathlib.Path(sys.argv[-1].removeprefix("--json="))
path.write_text(json.dumps({"tables": [{"rows": [{"ms": 1.5}]}]}))
print("| ms |")
"""
HANGS = MEASURES + "import time; time.sleep(60)"


def python(name, program, seconds=0.0, **more):
  return campaign.Station(name, [sys.executable, "-c", program], seconds, **more)


def result(folder, name):
  return json.loads((folder / f"{name}.json").read_text())


# --- campaigns


def test_a_second_start_runs_what_has_no_result(tmp_path):
  lines, again = [], []
  first = python("first", MEASURES)
  campaign.run([first], str(tmp_path), 1, lines.append)
  assert result(tmp_path, "first")["state"] == campaign.DONE and "| ms |\n" in lines
  assert result(tmp_path, "first")["tables"][0]["rows"] == [{"ms": 1.5}]
  campaign.run([first, python("second", MEASURES)], str(tmp_path), 1, again.append)
  assert [line.split(":")[0] for line in again if line.startswith("\n##")] == ["\n## second"]
  assert again[-1].count("| done |") == 2
  with pytest.raises(UserError, match=r"(?s)first\.json: is the result of .*choose another --out"):
    campaign.run([python("first", HANGS)], str(tmp_path), 1)


def test_a_failure_is_a_result_and_ends_the_command(tmp_path):
  stations = [python("bad", MEASURES + "raise ValueError('no such kernel')"), python("silent", "raise SystemExit(3)"),
              campaign.Station("nowhere", ["/no/such/program"], 0), python("good", MEASURES)]
  with pytest.raises(UserError, match=r"bad \(ValueError: no .*\); silent \(exit code 3\); nowhere \(.*No such"):
    campaign.run(stations, str(tmp_path), 1, [].append)
  bad = result(tmp_path, "bad")
  assert bad["error"] == "ValueError: no such kernel" and bad["tables"][0]["rows"] == [{"ms": 1.5}]
  assert result(tmp_path, "good")["state"] == campaign.DONE
  lines = []
  with pytest.raises(UserError, match="bad"):
    campaign.run(stations, str(tmp_path), 1, lines.append)
  assert not any(line.startswith("\n##") for line in lines)


def test_a_limit_is_a_finding_or_a_failure(tmp_path):
  with pytest.raises(UserError, match=r"failed: hangs \(no end after 1 s\)"):
    campaign.run([python("endless", HANGS, limit=1.0, may_not_end=True), python("hangs", HANGS, limit=1.0)],
                 str(tmp_path), 1, [].append)
  found = result(tmp_path, "endless")
  assert (found["state"], found["error"]) == (campaign.CUT, "no end after 1 s")
  assert found["tables"][0]["rows"] == [{"ms": 1.5}]


def test_the_end_of_time_stops_what_goes_on_next_time(tmp_path):
  """A training gets SIGTERM and no result; what takes longer than is left does not start; the next start ends both."""
  training = f"""
import pathlib, signal, sys, time
saved = pathlib.Path({str(tmp_path / "saved")!r})
signal.signal(signal.SIGTERM, lambda *_: (saved.write_text("10"), sys.exit(0)))
if not saved.exists():
  time.sleep(60)
"""
  stations = [python("long", MEASURES, seconds=30), python("then-1", training, measures=False)]
  lines = []
  campaign.run(stations, str(tmp_path), 4 / 60, lines.append)
  assert (tmp_path / "saved").read_text() == "10" and not (tmp_path / "then-1.json").exists()
  assert lines[-1].count(f"| {campaign.WAITING} |") == 2 and "2 wait for another start" in lines[-1]
  campaign.run(stations, str(tmp_path), 1, lines.append)
  assert lines[-1].count("| done |") == 2


def test_what_is_not_possible_here_leaves_no_result(tmp_path):
  lines = []
  campaign.run([python("torch", MEASURES, absent="it is not installed")], str(tmp_path), 1, lines.append)
  assert "| torch | not possible here |  | it is not installed |" in lines[-1] and not list(tmp_path.glob("*.json"))


def test_no_station_outlives_the_campaign(tmp_path):
  """SIGTERM to the campaign ends the process that it waits for, and what that has started."""
  station = f"""
import os, pathlib, subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(tmp_path / "pids")!r}).write_text(f"{{os.getpid()}} {{inner.pid}}")
time.sleep(60)
"""
  program = f"""
import sys
from benchmarks import campaign
campaign.run([campaign.Station("it", [sys.executable, "-c", {station!r}], 0)], {str(tmp_path / "out")!r}, 5)
"""
  paths = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
  process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths})
  pids = tmp_path / "pids"
  while not pids.exists() or not pids.read_text():
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 128 + signal.SIGTERM
  for pid in map(int, pids.read_text().split()):
    stat = pathlib.Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(") ")[2][0] == "Z"  # Dead, and waits for its parent.


def test_trainings_of_a_file(tmp_path):
  path = tmp_path / "then.txt"
  path.write_text("# comment\n\nscripts/train.py --config 'configs/a b.py'\necho done # later\n")
  first, second = campaign.trainings(str(path))
  assert first.command == [sys.executable, "scripts/train.py", "--config", "configs/a b.py"]
  assert (first.name, second.name, second.command) == ("then-3", "then-4", ["echo", "done"])
  assert first.limit is None and not first.measures
  path.write_text("scripts/train.py 'open")
  with pytest.raises(UserError, match="line 1 is no command"):
    campaign.trainings(str(path))
  with pytest.raises(UserError, match="cannot be read"):
    campaign.trainings(str(tmp_path / "none.txt"))


def test_the_accelerators_stations():
  """Names are unique, every network has its own, and none is expected to take a third of what a campaign has."""
  found = accelerator.stations(accelerator.NETWORKS, {"model.features": 8}, [64, 256], [1, 8], 4, 9)
  names = [station.name for station in found]
  assert len(set(names)) == len(names) and names[:3] == [f"step-{network}" for network in accelerator.NETWORKS]
  for station in found:
    assert station.seconds <= 8 * 60 and station.limit >= 2 * station.seconds
    network = any(station.name.endswith(name) for name in accelerator.NETWORKS)
    assert ("--config.model.features=8" in station.command) == network
  lite = next(station for station in accelerator.stations(["lite"], {}, [1], [1], 2, 1) if "pytorch" in station.name)
  assert lite.absent


@pytest.mark.end_to_end
def test_campaign(tmp_path):
  """The whole command at the smallest size, with a training that fails; a second start measures nothing anew."""
  then, out = tmp_path / "then.txt", tmp_path / "out"
  then.write_text("scripts/train.py --config configs/nothing.py --workdir nowhere\n")
  model = {"template_side": 63, "search_side": 127, "features": 16, "heads": 2, "tower_depth": 1, "norm": "group",
           "dtype": "float32", "backbone.widths": "(8,8,8,8)", "backbone.blocks": "(1,1,1,1)",
           **dict.fromkeys(small.PLAIN, "False")}
  command = [sys.executable, "scripts/benchmark.py", "accelerator", "--cases=shipped_lite", "--batch=2", "--repeats=1",
             "--streams=1,2", "--frames=2", f"--out={out}", f"--then={then}", "--config=configs/siamdff_r50.py",
             *(f"--config.model.{key}={value}" for key, value in model.items())]

  def start():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, cwd=ROOT, check=False)

  first = start()
  states = {path.stem: json.loads(path.read_text())["state"] for path in out.glob("*.json")}
  failed = {name: (out / f"{name}.log").read_text()[-500:] for name, state in states.items() if state != campaign.DONE}
  assert list(failed) == ["then-1"], (failed, first.stderr)
  assert first.returncode == 1 and "error: failed: then-1 (--config=configs/nothing.py" in first.stderr
  assert states.keys() - {"then-1"} == {
      "step-shipped_lite", "kernels-shipped_lite", "depthwise-shift", "depthwise-grouped-convolution",
      "depthwise-grouped-correlation", "population-shipped_lite", "tracking-shipped_lite", "loop-shipped_lite"}
  (sweep, memory) = result(out, "step-shipped_lite")["tables"]
  assert sweep["rows"][0]["case"] == "shipped:lite <- shipped:r18" and sweep["rows"][0]["pairs/s"] > 0
  assert memory["rows"][0]["measured"] == sweep["rows"][0]["measured (GiB)"]
  by_part = result(out, "kernels-shipped_lite")["tables"][1]
  assert {"backbone, forward", "backbone, gradient", "losses, forward"} <= {row["part"] for row in by_part["rows"]}
  forms = [row["form"] for row in result(out, "population-shipped_lite")["tables"][0]["rows"]]
  assert forms == ["one after the other", "lax.map", "vmap"]
  written = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
  second = start()
  assert second.returncode == 1 and "##" not in second.stdout and "then-1" in second.stderr
  assert written == {path: path.stat().st_mtime_ns for path in out.glob("*.json")}


# --- kernels


def profile(plane, lines):
  """A trace with one plane: {line: [(name, operation or "", start in ns, duration in ns)]}."""
  names = {name for events in lines.values() for name, _, _, _ in events}
  numbers = {name: number for number, name in enumerate(sorted(names), 1)}
  text = [f'planes {{ name: "{plane}" stat_metadata {{ key: 1 value {{ id: 1 name: "hlo_op" }} }}']
  text += [f'event_metadata {{ key: {n} value {{ id: {n} name: "{name}" }} }}' for name, n in numbers.items()]
  for number, (line, events) in enumerate(lines.items()):
    text.append(f'lines {{ id: {number} name: "{line}"')
    for name, operation, start, duration in events:
      stat = f'stats {{ metadata_id: 1 str_value: "{operation}" }}' if operation else ""
      text.append(f"events {{ metadata_id: {numbers[name]} offset_ps: {1000 * start} duration_ps: {1000 * duration} "
                  f"{stat} }}")
    text.append("}")
  space = jax.profiler.ProfileData.text_proto_to_serialized_xspace("\n".join([*text, "}"]))
  return jax.profiler.ProfileData.from_serialized_xspace(space)


def test_kernels_of_a_gpu():
  """Two streams that overlap; a line that is none does not count."""
  found = kernels.read(profile("/device:GPU:0", {
      "Stream #13(Compute)": [("loop_add_1", "loop_add.1", 0, 10), ("gemm", "", 20, 10)],
      "Stream #14(MemcpyD2D)": [("MemcpyD2D", "copy.2", 25, 15)], "Steps": [("1", "", 0, 100)]}))
  assert [(kernel.name, kernel.operation, kernel.own) for kernel in found] == [
      ("loop_add_1", "loop_add.1", 10), ("gemm", "", 10), ("MemcpyD2D", "copy.2", 15)]
  row = kernels.summary(found, steps=1)
  assert row == pytest.approx({"step (ms)": 40e-6, "kernels": 3, "busy (ms)": 30e-6, "idle": 0.25,
                               "mean kernel (us)": 35 / 3 / 1e3})


def test_a_loops_time_is_its_bodys():
  found = kernels.read(profile("/device:TPU:0", {"XLA Ops": [
      ("while", "while.1", 0, 100), ("fusion", "fusion.1", 10, 30), ("fusion", "fusion.1", 50, 40)]}))
  assert [kernel.own for kernel in found] == [30, 30, 40]
  rows = kernels.grouped(found, 2, {"kernel": lambda kernel: kernel.name})
  assert rows == [{"kernel": "fusion", "kernels": 1.0, "ms": pytest.approx(35e-6), "share": pytest.approx(0.7)},
                  {"kernel": "while", "kernels": 0.5, "ms": pytest.approx(15e-6), "share": pytest.approx(0.3)}]


def test_many_kernels_end_in_one_row():
  found = [kernels.Kernel(f"k{number}", "", 0, 1, own=100 - number) for number in range(30)]
  rows = kernels.grouped(found, 1, {"kernel": lambda kernel: kernel.name, "part": lambda _: "head"})
  assert len(rows) == 26 and rows[-1]["kernel"] == "5 others" and rows[-1]["kernels"] == 5
  assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_a_trace_without_kernels():
  with pytest.raises(UserError, match="no kernels"):
    kernels.read(profile("/host:CPU", {"python": [("call", "", 0, 1)]}))


@pytest.mark.parametrize("path, part", [
    ("jit(step)/jvp(SiamDFF)/SiamDFF.track/SiamDFF._features/backbone/stem/add", "backbone, forward"),
    ("jit(step)/transpose(jvp(SiamDFF))/SiamDFF.track/sten_2/merge/mul", "sten_2, gradient"),
    ("jit(step)/jvp(jit(log_sigmoid))/jit(softplus)/add", "losses, forward"),
    ("jit(step)/transpose(jvp(SiamDFF))/SiamDFF.track/while/body/mul", "SiamDFF, gradient"),
    ("jit(step)/jvp(FeatureDistiller)/adapter/dot_general", "FeatureDistiller, forward"),
    ("jit(step)/transpose(jvp())/neg", "losses, gradient"),
    ("jit(step)/cond/branch_1_fun/sqrt", kernels.OTHER), ("", kernels.OTHER)])
def test_parts(path, part):
  assert kernels.part_of(path) == part


def test_operations_of_a_compiled_program():
  compiled = jax.jit(lambda x: jax.nn.relu(x @ x).sum()).lower(jax.ShapeDtypeStruct((8, 8), "float32")).compile()
  found = kernels.operations(compiled.as_text())
  assert any(path.endswith("dot_general") for path in found.values())


# --- others that a campaign runs


def test_depthwise_rows():
  shapes = {"small": (depthwise.SHAPES["convolution 3x3, 31x31x64"][0], (4, 5, 5, 2), (3, 3, 2))}
  rows = list(depthwise.rows(2, ["shift"], 3, shapes))
  assert [(row["of"], row["batch"], row["dtype"]) for row in rows] == [
      ("forward", 3, "float32"), ("gradient", 3, "float32")]
  assert all(row["shift (ms)"] == pytest.approx(1e3 * timing.median(row["seconds"]["shift"])) for row in rows)


@pytest.mark.slow
def test_population_over_devices():
  rows = list(population.rows(case("tiny", small.config(**small.PLAIN)), 2, 1, members=2))
  assert [row["form"] for row in rows] == ["one after the other", "lax.map", "one per device", "vmap"]
  for row in rows:
    assert row["pairs/s"] == pytest.approx(2 * 2 / (row["step of all (ms)"] / 1e3))
    assert row["speed"] == pytest.approx(rows[0]["step of all (ms)"] / row["step of all (ms)"])
