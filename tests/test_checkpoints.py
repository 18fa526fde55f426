"""Checkpoints survive what happens to storage: half-written, damaged, full, vanished."""

import concurrent.futures
import contextlib
import gc
import itertools
import json
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax.sharding import NamedSharding, PartitionSpec

import small
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import checksums, contents, trained
from siamdff_jax.checkpoints.store import Checkpoints
from siamdff_jax.training.state import TrainState

# Pytest keeps what Orbax logs about a failure, and so the reads that it abandons, beyond the time that we are quiet.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
GOOD = 0.5


@pytest.fixture(autouse=True)
def _collected():
  yield
  gc.collect()


def state(step: int, size: int = 200) -> TrainState:
  """A state that no network needs: random arrays of a seed, about 8 * size^2 bytes."""
  rng = np.random.default_rng(step)

  def array(*shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))

  return TrainState(
      step=jnp.int32(step), params={"student": {"kernel": array(size, size), "bias": array(7)}, "distiller": {}},
      batch_stats={}, opt_state=(array(size, size), jnp.int32(step)), ema={"kernel": array(9)},
      bad_steps=jnp.int32(0))


def same(a: TrainState, b: TrainState) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def write(workdir, steps, **options) -> pathlib.Path:
  """Saves `state(step)` for each step; returns the folder of the checkpoints."""
  with Checkpoints(str(workdir), **options) as saved:
    for step in steps:
      saved.save(state(step), small.config(), GOOD)
  return pathlib.Path(workdir) / contents.FOLDER


def restore(workdir, like=0) -> TrainState:
  with Checkpoints(str(workdir)) as saved:
    return saved.restore(state(like))


def names(folder) -> set[str]:
  return {path.name for path in folder.iterdir()}


def array_file(checkpoint: pathlib.Path) -> pathlib.Path:
  """The largest file of a checkpoint's arrays."""
  return max((p for p in (checkpoint / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(checkpoint):
  os.truncate(array_file(checkpoint), array_file(checkpoint).stat().st_size // 2)


def flip_one_bit(checkpoint):
  content = bytearray(array_file(checkpoint).read_bytes())
  content[len(content) // 3] ^= 1
  array_file(checkpoint).write_bytes(content)


def empty(checkpoint):
  shutil.rmtree(checkpoint)
  checkpoint.mkdir()


DAMAGES = {
    "state folder missing": lambda checkpoint: shutil.rmtree(checkpoint / "state"),
    "array file truncated": truncate,
    "one bit flipped": flip_one_bit,
    "array file missing": lambda checkpoint: array_file(checkpoint).unlink(),
    "metadata missing": lambda checkpoint: (checkpoint / "state" / "_METADATA").unlink(),
    "metadata empty": lambda checkpoint: (checkpoint / "state" / "_METADATA").write_text(""),
    "metrics half": lambda checkpoint: (checkpoint / "metrics" / "metrics").write_text('{"io'),
    "checksums half": lambda checkpoint: (checkpoint / "checksums" / "metadata").write_text('{"par'),
    "folder empty": empty,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, capfd, damage):
  """The one before is restored, a sentence names the damaged one, and its step can be saved again."""
  folder = write(tmp_path, (1, 2, 3))
  damage(folder / "3")
  with caplog.at_level(logging.WARNING, "siamdff_jax"), Checkpoints(str(tmp_path)) as saved:
    assert same(saved.restore(state(0)), state(2))
    assert saved.last_step == 2
    assert names(folder) == {"2", "damaged_3"}
    saved.save(state(3), small.config(), GOOD)
  warnings = [r.getMessage() for r in caplog.records if r.name.startswith("siamdff_jax")]
  assert len(warnings) == 1 and str(folder / "3") in warnings[0] and "damaged_3" in warnings[0]
  assert "\n" not in warnings[0] and "Traceback" not in capfd.readouterr().err
  assert same(restore(tmp_path), state(3))
  assert names(folder) == {"2", "3", "damaged_3"}


def test_what_an_interrupted_save_leaves_is_no_checkpoint(tmp_path):
  folder = write(tmp_path, (1, 2, 3))
  (folder / "3").rename(folder / "3.orbax-checkpoint-tmp")
  assert trained.find(str(tmp_path)) == str(folder / "2")
  with Checkpoints(str(tmp_path)) as saved:
    assert same(saved.restore(state(0)), state(2))
    saved.save(state(3), small.config(), GOOD)
  assert names(folder) == {"2", "3"}


def test_a_save_that_still_writes_does_not_cost_the_next(tmp_path, caplog):
  """A save that failed may leave threads that write while what it left is removed."""
  left = write(tmp_path, (1,)) / "2.orbax-checkpoint-tmp"
  left.mkdir()
  until = time.monotonic() + 1

  def keep_writing():
    for n in itertools.count():
      if time.monotonic() > until:
        return
      # The folder may go, and come again, at any moment: between two files, and within mkdir, which
      # finds it first and then does not.
      with contextlib.suppress(FileNotFoundError, FileExistsError):
        left.mkdir(exist_ok=True)
        (left / str(n)).touch()

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    writers = [pool.submit(keep_writing) for _ in range(4)]
    with Checkpoints(str(tmp_path)) as saved:
      saved.save(state(3), small.config(), GOOD)
    for writer in writers:
      writer.result()
  assert "could not be saved" not in caplog.text
  assert same(restore(tmp_path), state(3))


def test_damage_after_damage(tmp_path, caplog):
  """Back to the best, when that is all there is; and a young run's only checkpoint: from the beginning."""
  folder = write(tmp_path, (1,))
  with Checkpoints(str(tmp_path)) as saved:
    for step in (2, 3):
      saved.save(state(step), small.config())
  assert names(folder) == {"1", "2", "3"}
  truncate(folder / "2")
  shutil.rmtree(folder / "3" / "state")
  assert same(restore(tmp_path), state(1))
  assert [r.getMessage().split(":")[0] for r in caplog.records if "damaged_" in r.getMessage()] == [
      str(folder / "3"), str(folder / "2")]
  truncate(folder / "1")
  assert same(restore(tmp_path, like=7), state(7))
  assert names(folder) == {"damaged_1", "damaged_2", "damaged_3"}


def test_all_of_several_damaged_changes_nothing(tmp_path):
  folder = write(tmp_path, (1, 2))
  truncate(folder / "1")
  truncate(folder / "2")
  with pytest.raises(UserError, match="all of its checkpoints are damaged") as error:
    restore(tmp_path)
  assert str(folder / "2") in str(error.value) and "\n" not in str(error.value)
  assert names(folder) == {"1", "2"}


def test_a_config_that_does_not_fit_never_falls_back(tmp_path):
  folder = write(tmp_path, (1,))
  with Checkpoints(str(tmp_path)) as saved:
    saved.save(state(2, size=30), small.config(), GOOD)
  with pytest.raises(UserError, match=r"does not fit the config: .*\(30, 30\) in the checkpoint and \(200, 200\)"):
    restore(tmp_path)
  assert names(folder) == {"1", "2"}


def test_damaged_weights_are_one_sentence_for_inference(tmp_path):
  folder = write(tmp_path, (1,))
  expected = {"params": {"kernel": jax.ShapeDtypeStruct((9,), jnp.float32)}, "batch_stats": {}}
  found = trained.load_variables(str(tmp_path), expected)
  np.testing.assert_array_equal(found["params"]["kernel"], state(1).ema["kernel"])
  file = folder / "1" / "checksums" / "metadata"
  saved = json.loads(file.read_text())
  file.write_text(json.dumps(saved | {"ema/kernel": saved["ema/kernel"] ^ 1}))
  with pytest.raises(UserError, match="content of ema/kernel is not what was saved"):
    trained.load_variables(str(tmp_path), expected)


def test_the_last_and_the_best_are_kept(tmp_path):
  with Checkpoints(str(tmp_path), keep=2) as saved:
    for step, iou in enumerate((0.1, 0.9, 0.3, 0.2, 0.4), start=1):
      saved.save(state(step), small.config(), iou)
  assert names(tmp_path / contents.FOLDER) == {"2", "4", "5"}


def put_a_file_in_place_of(folder):
  """Also where the folder is made anew by the save under way between the two steps."""
  for attempt in itertools.count():
    folder.rename(folder.with_name(f"{folder.name} moved away {attempt}"))  # Removing takes longer than writing.
    try:
      return folder.write_text("not a folder")
    except IsADirectoryError:
      continue


def test_a_vanished_folder_costs_one_save(tmp_path, caplog):
  """It vanishes between saves, and while one is being written; and a file stands in its place for a while."""
  workdir, threads = tmp_path / "run", set(threading.enumerate())
  with Checkpoints(str(workdir)) as saved:
    saved.save(state(1), small.config(), GOOD)
    saved.wait()
    workdir.rename(tmp_path / "gone")
    saved.save(state(2), small.config(), GOOD)
    saved.wait()
    assert names(workdir / contents.FOLDER) == {"2"}
    saved.save(state(3, size=2000), small.config(), GOOD)
    put_a_file_in_place_of(workdir)
    with pytest.raises(UserError, match="last save, of step 3, failed.*nothing of this run is saved"):
      saved.wait()
    saved.save(state(4), small.config(), GOOD)  # Goes on.
    workdir.unlink()
    saved.save(state(5), small.config(), GOOD)
  warnings = [r.getMessage() for r in caplog.records if "could not be saved" in r.getMessage()]
  assert ["step 3" in warnings[0], "step 4" in warnings[1], len(warnings)] == [True, True, 2]
  for thread in set(threading.enumerate()) - threads:  # A thread that waits for a failed one keeps the process alive.
    threading.Thread.join(thread, 60)  # Orbax's own `join` raises what the thread has raised, too.
    assert not thread.is_alive(), thread
  assert same(restore(workdir), state(5))


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_storage(tmp_path):
  with pytest.raises(ZeroDivisionError), Checkpoints(str(tmp_path)) as saved:
    saved.save(state(1), small.config(), GOOD)
    saved.wait()
    shutil.rmtree(tmp_path)
    tmp_path.write_text("not a folder")
    saved.save(state(2), small.config(), GOOD)
    raise ZeroDivisionError


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 8 MB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True,
                           text=True) if sys.platform == "linux" else None
  if mounted is None or mounted.returncode:
    pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip() if mounted else 'not Linux'}")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_the_saves_that_do_not_fit(small_disk, caplog, capfd):
  workdir, ballast = small_disk / "run", small_disk / "ballast"
  with Checkpoints(str(workdir)) as saved:
    saved.save(state(1, size=400), small.config(), GOOD)
    saved.wait()
    with pytest.raises(OSError, match="No space left"), open(ballast, "wb") as file:
      while True:
        file.write(bytes(2**16))
    for step in (2, 3):
      saved.save(state(step, size=400), small.config(), GOOD)
    with pytest.raises(UserError, match="step 3, failed .*No space left on device.*; the run is safe up to step 1"):
      saved.wait()
    ballast.unlink()
    saved.save(state(4, size=400), small.config(), GOOD)
  warnings = [r.getMessage() for r in caplog.records if "could not be saved" in r.getMessage()]
  assert ["step 2" in warnings[0], "step 3" in warnings[1], len(warnings)] == [True, True, 2]
  assert all("No space left on device" in warning for warning in warnings)
  assert "Traceback" not in capfd.readouterr().err
  # Threads of a failed save may make its folder again after it was removed. A start after their end removes it.
  for _ in range(100):
    with Checkpoints(str(workdir)) as saved:
      assert same(saved.restore(state(0, size=400)), state(4, size=400))
    if names(workdir / contents.FOLDER) == {"1", "4"}:
      break
    time.sleep(0.1)
  assert names(workdir / contents.FOLDER) == {"1", "4"}


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
  (tmp_path / "run").write_text("not a folder")
  with pytest.raises(UserError, match="cannot be made"):
    Checkpoints(str(tmp_path / "run"))


def test_checksums_are_the_formula_and_see_one_bit():
  rng = np.random.default_rng(0)
  arrays = {"float": rng.normal(size=(3, 5, 2)).astype(np.float32), "integer": rng.integers(-9, 9, 4, dtype=np.int32),
            "short": rng.normal(size=(6,)).astype(jnp.bfloat16), "flag": np.array([True, False, True]),
            "number": np.float32(3)}

  def by_hand(x):
    words = np.asarray(x).reshape(-1).view(f"u{np.asarray(x).dtype.itemsize}").tolist()
    return sum(word * (2 * place + 1) for place, word in enumerate(words)) % 2**32

  found = checksums.of(arrays)
  assert found == {name: by_hand(x) for name, x in arrays.items()}
  for bit in (0, 13, 31):
    changed = arrays["float"].copy()
    changed.view(np.uint32)[1, 2, 0] ^= np.uint32(1 << bit)
    assert checksums.of(arrays | {"float": changed})["float"] != found["float"]


def test_checksums_do_not_depend_on_the_devices():
  mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
  x = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
  placed = [jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes))) for axes in ((), ("data",), (None, "data"))]
  assert len({checksums.of({"x": y})["x"] for y in [x, *placed]}) == 1


def test_checksums_over_all_devices_that_a_process_has():
  """Where all of the processor's threads are devices, sums over them that wait for each other would wait for ever."""
  program = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from siamdff_jax.checkpoints import checksums
mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("data"))
arrays = {str(n): np.random.default_rng(n).normal(size=(2, 300, 70 + n % 7)).astype(np.float32) for n in range(150)}
assert checksums.of({name: jax.device_put(x, split) for name, x in arrays.items()}) == checksums.of(arrays)
"""
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                              "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
  done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr[-2000:]


def test_saving_returns_before_the_file_is_there(tmp_path):
  """The state may be changed (its buffers donated) while the save is under way."""
  with Checkpoints(str(tmp_path)) as saved:
    before = state(1, size=1500)
    saved.save(before, small.config(), GOOD)
    under_way = not (tmp_path / contents.FOLDER / "1").exists()
    jax.jit(lambda x: jax.tree.map(lambda y: y * 0, x), donate_argnums=0)(before)
    saved.wait()
    assert under_way and same(saved.restore(state(0, size=1500)), state(1, size=1500))


def test_the_hook_for_what_nobody_catches_is_replaced_only_while_something_is_written(tmp_path):
  before, blocked = sys.unraisablehook, tmp_path / "blocked"
  with Checkpoints(str(tmp_path)) as saved, Checkpoints(str(blocked)) as other:
    assert sys.unraisablehook is before
    saved.save(state(1, size=1500), small.config(), GOOD)
    assert sys.unraisablehook is not before
    saved.wait()
    assert sys.unraisablehook is before
    saved.save(state(1), small.config(), GOOD)  # Is there already.
    assert sys.unraisablehook is before
    shutil.rmtree(blocked)
    blocked.write_text("not a folder")
    other.save(state(1), small.config(), GOOD)
    assert sys.unraisablehook is not before  # What a failed save abandons may report later.
    saved.save(state(2), small.config(), GOOD)
    saved.wait()
    assert sys.unraisablehook is not before
    blocked.unlink()
    other.save(state(2), small.config(), GOOD)
    other.wait()
    assert sys.unraisablehook is before
  assert sys.unraisablehook is before
