"""What the log says of speed: counts, peaks, and the meter under a clock of our own."""

import jax
import jax.numpy as jnp
import pytest

import small
from siamdff_jax.models import depthwise
from siamdff_jax.training import throughput
from siamdff_jax.training.meter import Meter, memory_gib
from siamdff_jax.training.throughput import peak_flops


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def slow_stream(clock, seconds):
  while True:
    clock.now += seconds
    yield "batch"


def test_rate_wait_and_mfu():
  """4 steps of 8 pairs in 2 s, 0.5 s of it in the stream, 5 GFLOP per pair on 400 GFLOP/s."""
  clock = Clock()
  meter = Meter(8, flops_per_pair=5e9, peak=400e9, clock=clock, memory=lambda: {"host_memory_gib": 3.0})
  stream = slow_stream(clock, 0.125)
  for _ in range(4):
    assert meter.take(stream) == "batch"
    clock.now += 0.375
    meter.advance()
  assert meter.scalars() == pytest.approx(
      {"pairs_per_second": 16, "input_wait": 0.25, "mfu": 0.2, "host_memory_gib": 3.0})
  clock.now += 1.0  # The next interval starts anew.
  meter.advance()
  assert meter.scalars() == pytest.approx(
      {"pairs_per_second": 8, "input_wait": 0.0, "mfu": 0.1, "host_memory_gib": 3.0})


def test_a_pause_belongs_to_no_interval():
  clock = Clock()
  meter = Meter(10, clock=clock, memory=dict)
  clock.now += 1
  with meter.paused():
    clock.now += 50
  clock.now += 0.5
  meter.take(slow_stream(clock, 0.5))
  meter.advance()
  assert meter.scalars() == pytest.approx({"pairs_per_second": 5, "input_wait": 0.25})


@pytest.mark.parametrize("flops, peak", [(None, 1e12), (1e9, None)])
def test_no_mfu_without_a_known_peak(flops, peak):
  clock = Clock()
  meter = Meter(10, flops, peak, clock=clock, memory=dict)
  clock.now += 1
  assert "mfu" not in meter.scalars()


@pytest.mark.parametrize("kind, bfloat16, float32", [
    ("NVIDIA H100 80GB HBM3", 989e12, 494e12),
    ("NVIDIA H100 PCIe", 756e12, 378e12),
    ("NVIDIA H200", 989e12, 494e12),
    ("NVIDIA GH200 480GB", 989e12, 494e12),
    ("NVIDIA A100-SXM4-40GB", 312e12, 156e12),
    ("NVIDIA L4", 121e12, 60e12),
    ("NVIDIA L40S", 362e12, 183e12),
    ("Tesla V100-SXM2-16GB", None, 15.7e12),
    ("TPU v4", 275e12, 275e12),
    ("TPU v5 lite", 197e12, 197e12),
    ("TPU v5p", 459e12, 459e12),
    ("TPU v5", 459e12, 459e12),
    ("TPU v6 lite", 918e12, 918e12),
    ("NVIDIA L40", None, None),  # Not in the table, and neither an L4 nor an L40S.
    ("cpu", None, None),
])
def test_peaks_by_device_kind(kind, bfloat16, float32):
  assert peak_flops(kind, jnp.bfloat16) == bfloat16
  assert peak_flops(kind, "float32") == float32
  assert peak_flops(kind, "float64") is None


def convolutions_by_hand(config):
  """Multiply-adds x 2 of the dense convolutions of the plain network of `small.config`, counted on paper.

  One template (63 -> stem 31 -> pool 15 -> stage 2 on: 7 cells) and one search crop (127 -> 63 -> 31 -> 15).
  """
  width, features, total = config.backbone.widths[0], config.features, 0
  for stem, pooled, cells in ((31, 15, 7), (63, 31, 15)):
    total += stem**2 * 9 * 1 * width
    total += pooled**2 * 2 * 9 * width**2  # Stage 1: two 3x3.
    total += 3 * cells**2 * 2 * 9 * width**2  # Stages 2 to 4.
    total += 3 * cells**2 * width * features  # The neck.
  response = 9
  total += response**2 * 49 * features  # Correlation.
  total += response**2 * 9 * features * (2 * config.tower_depth * features + 1 + 1 + 4)  # The head.
  return 2 * total


@pytest.fixture(scope="module")
def plain():
  return small.config(**small.PLAIN)


def test_forward_count(plain):
  """XLA's count is the convolutions' plus the elementwise rest; taps on the padding may be left out of it."""
  by_hand = convolutions_by_hand(plain.model)
  assert throughput.forward_flops(plain.model) == pytest.approx(by_hand, rel=0.03)


def test_both_depthwise_forms_count_alike(monkeypatch):
  """So the model's FLOPs do not depend on the backend that the training runs on."""
  config = small.config().model
  counts = []
  for form in ("shift", "grouped"):
    monkeypatch.setattr(depthwise, "default_form", lambda form=form: form)
    counts.append(throughput.forward_flops(config))
  assert counts[0] == pytest.approx(counts[1], rel=0.03)  # Tiny maps are mostly border.


def test_a_step_counts_three_students_and_a_teacher(plain):
  wider = small.config(**small.PLAIN, features=32)
  student, teacher = throughput.forward_flops(plain.model), throughput.forward_flops(wider.model)
  assert teacher > 1.2 * student
  assert throughput.model_flops(plain) == pytest.approx(3 * student)
  assert throughput.model_flops(plain, wider) == pytest.approx(3 * student + teacher)


def test_memory_is_this_process():
  found = memory_gib()
  assert 0.05 < found["host_memory_gib"] < 64
  assert ("device_memory_gib" in found) == bool(jax.local_devices()[0].memory_stats())
