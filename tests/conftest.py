"""What all tests share."""

import os
import pathlib

import pytest
from absl import flags

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config):
  del config
  flags.FLAGS.mark_as_parsed()  # tfds reads absl flags, which nothing parses under pytest.


@pytest.fixture(scope="session")
def data_root() -> pathlib.Path:
  """The folder with the real clips and the conformance data; the test is skipped where it is not there."""
  root = pathlib.Path(os.environ.get("SIAMDFF_DATA", ROOT.parent / "shared" / "data"))
  if not root.is_dir():
    pytest.skip(f"no real data at {root} (set SIAMDFF_DATA)")
  return root
