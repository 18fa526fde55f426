"""Two processes of two devices each train like one process; their checkpoints restore on other device counts."""

import functools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import topology_worker as worker

import small
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.parallel import distributed
from siamdff_jax.parallel import layouts as parallel

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def launch(what: str, folder: pathlib.Path, *layouts: str, processes: int = 2) -> list[subprocess.Popen]:
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
  coordinator = f"127.0.0.1:{free_port()}"
  return [subprocess.Popen(
      [sys.executable, str(ROOT / "tests" / "topology_worker.py"), what, coordinator, str(processes), str(index), "2",
       str(folder), *layouts], env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
      for index in range(processes)]


def finish(processes: list[subprocess.Popen], timeout: float = 600):
  try:
    for process in processes:
      output, _ = process.communicate(timeout=timeout)
      assert process.returncode == 0, output
  finally:
    for process in processes:
      process.kill()


@functools.cache
def one_process(layout: str, devices: int):
  """(leaves of the last state, metrics) of the same training in this process."""
  _, state, metrics = worker.train(worker.config_of(layout), jax.devices("cpu")[:devices])
  return jax.device_get(jax.tree.leaves(state)), metrics


def assert_same_training(folder, layout, expected):
  leaves, expected_metrics = expected
  for process in range(2):
    metrics = json.loads((folder / f"{layout}_{process}.json").read_text())
    assert len(metrics) == worker.STEPS
    for found, wanted in zip(metrics, expected_metrics, strict=True):
      assert {"loss", "grad_norm", "iou"} < found.keys() == wanted.keys()
      for name in found:
        assert found[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-7), (process, name)
  start = jax.tree.leaves(small.start_state(worker.config_of(layout)))
  with np.load(folder / f"{layout}.npz") as found:
    for name, wanted, before in zip(found.files, leaves, start, strict=True):
      moved = np.abs(wanted - before).max()
      assert np.abs(found[name] - wanted).max() <= 1e-3 * moved + 1e-7, name


def assert_restores(folder, layout, restored_as, devices):
  """Equal bits from the checkpoint that two processes wrote, here, on another number of devices."""
  config = worker.config_of(restored_as)
  placed = parallel.make_layout(config.layout, worker.BATCH, jax.devices("cpu")[:devices])
  empty = placed.put_state(jax.tree.map(np.zeros_like, small.start_state(config)))
  with Checkpoints(str(folder / layout)) as saved:
    state = saved.restore(empty)
  assert state.step == worker.STEPS
  with np.load(folder / f"{layout}.npz") as wanted:
    for name, x in zip(wanted.files, jax.tree.leaves(state), strict=True):
      assert len(x.sharding.device_set) == devices
      assert np.asarray(x).tobytes() == wanted[name].tobytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Trains the asked layout by two processes, once; the folder with what they wrote."""
  folders = {}

  def get(layout):
    if layout not in folders:
      folders[layout] = tmp_path_factory.mktemp(layout)
      finish(launch("train", folders[layout], layout))
    return folders[layout]

  return get


@pytest.mark.parametrize("layout", [pytest.param("pmap", marks=pytest.mark.end_to_end),
                                    *(pytest.param(x, marks=pytest.mark.slow) for x in ("mesh", "fsdp"))])
def test_two_processes_train_like_one_and_restore_anywhere(trained, layout):
  folder = trained(layout)
  assert_same_training(folder, layout, one_process("mesh", 1))
  assert_restores(folder, layout, "mesh", 1)
  assert_restores(folder, layout, "pmap", 2)
  assert_restores(folder, layout, "fsdp", 8)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "mesh", "fsdp"])
def test_two_processes_train_like_one_with_as_many_devices(trained, layout):
  assert_same_training(trained(layout), layout, one_process(layout, 4))


@pytest.mark.slow
def test_with_virtual_shards_two_processes_give_the_bits_of_one(trained, tmp_path):
  """Of one process that also has two devices: on CPUs the bits were seen to change with a process's device count."""
  folder = trained("shards")
  finish(launch("train", tmp_path, "shards", processes=1))
  with np.load(folder / "shards.npz") as found, np.load(tmp_path / "shards.npz") as wanted:
    assert found.files == wanted.files
    for name in wanted.files:
      assert found[name].tobytes() == wanted[name].tobytes(), name
  assert (folder / "shards_0.json").read_text() == (tmp_path / "shards_0.json").read_text()


@pytest.mark.parametrize("layout,restored_as", [("pmap", "mesh"), ("fsdp", "pmap"), ("fsdp", "fsdp")])
def test_eight_devices_to_two(tmp_path, layout, restored_as):
  config = worker.config_of(layout)
  placed = parallel.make_layout(config.layout, 8, jax.devices("cpu")[:8])
  start = small.start_state(config).replace(step=np.int32(worker.STEPS))
  np.savez(tmp_path / f"{layout}.npz", *jax.tree.leaves(start))
  with Checkpoints(str(tmp_path / layout)) as saved:
    saved.save(placed.put_state(start), config)
  assert_restores(tmp_path, layout, restored_as, 2)


@pytest.mark.end_to_end
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path, sent):
  processes = launch("stop", tmp_path)
  try:
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("*.running"))) < 2 and time.monotonic() < until:
      assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
      time.sleep(0.05)
    processes[1].send_signal(sent)
  finally:
    finish(processes, 120)
  steps = [int((tmp_path / f"stopped_{index}").read_text()) for index in range(2)]
  assert steps[0] == steps[1] < 1000


def test_one_process_stops_by_its_own_handler():
  before = signal.getsignal(signal.SIGTERM)
  stop = distributed.StopSignal()
  assert not stop.asked(1)
  os.kill(os.getpid(), signal.SIGTERM)
  assert stop.asked(2)
  stop.restore()
  assert signal.getsignal(signal.SIGTERM) == before
  assert distributed.is_lead()


def test_half_an_address_is_refused():
  with pytest.raises(UserError, match="--coordinator, --num_processes and --process_id belong together"):
    distributed.start("127.0.0.1:1234", 2)
