import logging

import jax
import numpy as np
import pytest
from flax import traverse_util

import small
from input_pipeline.errors import UserError
from siamdff_jax.models.load import load_model
from siamdff_jax.training import warm_start


def flat(tree):
  return traverse_util.flatten_dict(dict(tree), sep="/")


def test_a_run_starts_from_another_networks_arrays_and_keeps_what_only_it_has(tmp_path, caplog):
  checkpoint = small.write_checkpoint(tmp_path / "run", small.config(use_dcfam=False))
  state = small.start_state(small.config(use_sten=False, use_intensity=False))
  with caplog.at_level(logging.INFO):
    started = warm_start.start_from(state, checkpoint)
  assert jax.tree.map(np.shape, started) == jax.tree.map(np.shape, state)
  theirs = flat(load_model(checkpoint)[1]["params"])
  for ours, before in ((started.params["student"], state.params["student"]), (started.ema, state.ema)):
    for name, value in flat(ours).items():
      np.testing.assert_array_equal(value, flat(before)[name] if name.startswith("dcfam/") else theirs[name])
  assert "freshly initialised: dcfam/" in caplog.text
  assert "left out: sten_2/" in caplog.text
  assert started.step == 0 and started.opt_state is state.opt_state
  buffers = [x.unsafe_buffer_pointer() for name in ("params", "ema") for key, x in flat(getattr(started, name)).items()
             if "dcfam/" not in key]
  assert len(set(buffers)) == len(buffers)  # The training step donates its state.


def test_another_network_is_refused(tmp_path):
  checkpoint = small.write_checkpoint(tmp_path / "run", small.config(features=24))
  with pytest.raises(UserError, match=r"is \(.*\) there and \(.*\) here"):
    warm_start.start_from(small.start_state(small.config()), checkpoint)
