"""What all tests share."""

import logging
import os
import pathlib
import signal

# Compiles in half the time, here and in scripts that tests start; what is compiled runs slower. Also shows gradients
# that hang on one way of fusing. JAX reads it when it is imported.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# XLA's emitters from before MLIR, one object file per program: a training step compiles in a third of the time.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), "--xla_cpu_use_fusion_emitters=false",
                                    "--xla_cpu_parallel_codegen_split_count=1"])

import jax
import pytest
from absl import flags

from siamdff_jax.parallel import distributed

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Eight virtual devices on the CPU, for the tests of the layouts over devices; everything else runs on the first.
# Set in this process only (not by an environment variable): scripts that tests start see the machine as it is.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_configure(config):
  del config
  flags.FLAGS.mark_as_parsed()  # tfds reads absl flags, which nothing parses under pytest.
  # Started in the background or by nohup, these would be ignored, by us and by the scripts that tests start.
  for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
      signal.signal(number, handler)


@pytest.fixture(autouse=True)
def forgotten_signals():
  """A test that stops a training by a signal leaves no sign of it for the next."""
  yield
  distributed.StopSignal._last = None


@pytest.fixture
def said(caplog, monkeypatch):
  """A function that returns what `input_pipeline` has told the user so far, also after a script's start in this process
  has led its messages elsewhere."""
  monkeypatch.setattr(logging.getLogger("input_pipeline"), "propagate", True)
  caplog.set_level(logging.INFO, logger="input_pipeline")
  return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(scope="session")
def data_root() -> pathlib.Path:
  """The folder with the real clips and the conformance data; the test is skipped where it is not there."""
  root = pathlib.Path(os.environ.get("SIAMDFF_DATA", ROOT.parent / "shared" / "data"))
  if not root.is_dir():
    pytest.skip(f"no real data at {root} (set SIAMDFF_DATA)")
  return root
