"""Boxes, label assignment and losses against numpy written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import small
from input_pipeline import geometry
from input_pipeline.errors import UserError
from siamdff_jax import losses, targets

SIDE, SEARCH = small.RESPONSE_CELLS, small.SEARCH_SIDE  # 9 cells on 127 pixels.


def random_boxes(seed, count=200):
  rng = np.random.default_rng(seed)
  lt = rng.uniform(0, 60, (count, 2))
  return np.concatenate([lt, lt + rng.uniform(1, 50, (count, 2))], -1)


def iou_by_hand(a, b):
  w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
  h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
  union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
  return w * h / union, union


def giou_by_hand(a, b):
  iou, union = iou_by_hand(a, b)
  hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
  return iou - (hull - union) / hull


def nwd_by_hand(a, b, constant):
  """Gaussians N((cx, cy), diag(w^2/4, h^2/4)): squared 2-Wasserstein distance of centres and half sides."""

  def as_vector(x):
    return np.array([(x[0] + x[2]) / 2, (x[1] + x[3]) / 2, (x[2] - x[0]) / 2, (x[3] - x[1]) / 2])

  return np.exp(-np.linalg.norm(as_vector(a) - as_vector(b)) / constant)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def bce(logit, label):
  p = sigmoid(np.asarray(logit, np.float64))
  return -(label * np.log(p) + (1 - label) * np.log(1 - p))


def test_forms_of_a_box():
  box = jnp.array([[10.0, 20.0, 4.0, 6.0]])
  np.testing.assert_allclose(geometry.xywh_to_center_wh(box), [[12, 23, 4, 6]])
  np.testing.assert_allclose(geometry.center_wh_to_xywh(geometry.xywh_to_center_wh(box)), box)


def test_overlaps_equal_those_by_hand():
  a, b = random_boxes(0), random_boxes(1)
  np.testing.assert_allclose(geometry.iou(a, b), [iou_by_hand(*p)[0] for p in zip(a, b, strict=True)], atol=1e-5)
  np.testing.assert_allclose(losses.giou(a, b), [giou_by_hand(*p) for p in zip(a, b, strict=True)], atol=1e-5)
  np.testing.assert_allclose(losses.nwd(a, b, 32.0), [nwd_by_hand(*p, 32) for p in zip(a, b, strict=True)], atol=1e-5)


def test_overlaps_at_the_ends():
  box, far = jnp.array([0.0, 0, 10, 10]), jnp.array([1000.0, 1000, 1001, 1001])
  assert geometry.iou(box, box) == losses.giou(box, box) == 1 and losses.nwd(box, box, 32) == pytest.approx(1, abs=1e-4)
  assert geometry.iou(box, far) == 0 and losses.giou(box, far) < -0.99 and losses.nwd(box, far, 32) < 1e-6
  empty = jnp.zeros(4)
  for function in (geometry.iou, losses.giou, lambda a, b: losses.nwd(a, b, 32.0)):
    for pair in ((empty, empty), (box, empty), (box, box)):
      assert np.isfinite(function(*pair)) and np.isfinite(jax.grad(function)(*pair)).all()


def test_cells_and_their_boxes():
  """Cell k lies at pixel index (S-1)/2 + 8 (k - (n-1)/2), half a pixel more in continuous coordinates."""
  grid = targets.cell_grid(25, 255)
  assert grid.shape == (25, 25, 2)
  np.testing.assert_allclose(grid[0, :, 0] - 0.5, 31 + 8 * np.arange(25))  # As FIELD: cell i at search pixel 8 i + 31.
  np.testing.assert_allclose(grid[:, 3, 1], grid[3, :, 0])
  ltrb = jnp.zeros((1, 25, 25, 4)).at[0, 2, 5].set(jnp.array([1.0, 2, 3, 4]))
  x, y = 8 * 5 + 31.5, 8 * 2 + 31.5
  np.testing.assert_allclose(targets.boxes_from_ltrb(ltrb, 255)[0, 2, 5], [x - 1, y - 2, x + 3, y + 4])


def assign_by_hand(box, present):
  """Cell by cell; see `targets.assign`."""
  positive, negative, centerness = (np.zeros((SIDE, SIDE)) for _ in range(3))
  cx, cy, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
  for row in range(SIDE):
    for column in range(SIDE):
      x, y = 63.5 + 8 * (column - 4), 63.5 + 8 * (row - 4)
      inside = abs(x - cx) < w / 2 and abs(y - cy) < h / 2
      central = abs(x - cx) < w / 4 and abs(y - cy) < h / 4
      nearest = abs(x - cx) < 4 and abs(y - cy) < 4
      positive[row, column] = present and (central or nearest)
      negative[row, column] = not present or not (inside or nearest)
      left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
      if min(left, top, right, bottom) > 0:
        centerness[row, column] = np.sqrt(
            min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
  return {"positive": positive, "negative": negative, "centerness": centerness}


def labelled(seed=0, size=16):
  rng = np.random.default_rng(seed)
  centre, wh = rng.uniform(25, 100, (size, 2)), rng.uniform(2, 60, (size, 2))
  return np.concatenate([centre - wh / 2, centre + wh / 2], -1).astype(np.float32), np.arange(size) % 3 > 0


def test_labels_equal_those_by_hand():
  box, present = labelled()
  labels = targets.assign(box, present, SIDE, SEARCH)
  for i in range(len(box)):
    for name, expected in assign_by_hand(box[i].astype(np.float64), present[i]).items():
      np.testing.assert_allclose(labels[name][i], expected, atol=1e-5, err_msg=f"{name} {i}")


@pytest.mark.parametrize("size", [0.5, 3.0, 7.9])
def test_tiny_boxes_have_exactly_one_positive_cell(size):
  """Wherever their centre lies, also midway between cells (multiples of 4 from a cell's own place)."""
  centres = np.concatenate([np.random.default_rng(0).uniform(32, 95, (300, 2)),
                            63.5 + 4 * np.stack(np.meshgrid(range(-8, 8), range(-8, 8)), -1).reshape(-1, 2)])
  box = np.concatenate([centres - size / 2, centres + size / 2], -1)
  labels = targets.assign(jnp.asarray(box, jnp.float32), jnp.ones(len(box)), SIDE, SEARCH)
  np.testing.assert_array_equal(labels["positive"].sum((1, 2)), 1)
  distance = np.abs(np.asarray(targets.cell_grid(SIDE, SEARCH))[None] - centres[:, None, None]).max(-1)
  assert (distance[np.asarray(labels["positive"]) > 0] <= 4 + 1e-3).all()
  assert not (labels["positive"] * labels["negative"]).any()


def test_absent_targets_have_negative_cells_only():
  box, _ = labelled()
  for boxes_given in (box, np.zeros_like(box)):
    labels = targets.assign(boxes_given, np.zeros(len(box)), SIDE, SEARCH)
    assert not labels["positive"].any() and labels["negative"].all() and np.isfinite(labels["centerness"]).all()


def masks(seed=0):
  rng = np.random.default_rng(seed)
  kind = rng.integers(0, 3, (4, SIDE, SIDE))
  logit = rng.normal(size=kind.shape).astype(np.float32) * 3
  positive, negative = (kind == 0).astype(np.float32), (kind == 1).astype(np.float32)
  return logit, positive, negative, {"positive": positive.sum(), "negative": negative.sum()}


def test_focal_loss_by_hand():
  logit, positive, negative, counts = masks()
  p = sigmoid(logit.astype(np.float64))
  expected = 0.0
  for probability, is_positive, is_negative in zip(p.ravel(), positive.ravel(), negative.ravel(), strict=True):
    if is_positive:
      expected += -0.25 * (1 - probability) ** 2 * np.log(probability)
    if is_negative:
      expected += -0.75 * probability**2 * np.log(1 - probability)
  assert losses.focal(logit, positive, negative, counts) == pytest.approx(expected / positive.sum(), rel=1e-5)


def test_focal_without_focus_is_weighted_cross_entropy():
  logit, positive, negative, counts = masks(1)
  found = losses.focal(logit, positive, negative, counts, alpha=0.5, gamma=0.0)
  expected = 0.5 * (bce(logit, 1) * positive + bce(logit, 0) * negative).sum() / positive.sum()
  assert found == pytest.approx(expected, rel=1e-5)


def test_balanced_bce_by_hand():
  logit, positive, negative, counts = masks(2)
  expected = (bce(logit, 1)[positive > 0].mean() + bce(logit, 0)[negative > 0].mean()) / 2
  assert losses.balanced_bce(logit, positive, negative, counts) == pytest.approx(expected, rel=1e-5)


def outputs(seed=0, size=16):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.normal(size=(size, *shape)).astype(np.float32)

  return {"class_logit": normal(SIDE, SIDE), "quality_logit": normal(SIDE, SIDE), "presence_logit": normal(),
          "ltrb": np.exp(normal(SIDE, SIDE, 4)) * 8}


@pytest.mark.parametrize("box_kind, quality_kind", [("giou", "centerness"), ("giou+nwd", "iou")])
def test_task_losses_by_hand(box_kind, quality_kind):
  config = small.config().loss
  config.update(box_kind=box_kind, quality_kind=quality_kind, class_kind="balanced_bce")
  box, present = labelled(3)
  batch, out = {"search_box_ltrb": box * present[:, None], "present": present.astype(np.float32)}, outputs()
  found = losses.task_losses(out, batch, losses.label_counts(batch, SIDE, SEARCH), config, SEARCH)

  box_terms, quality_terms, overlaps = [], [], []
  for i in np.flatnonzero(present):
    labels = assign_by_hand(box[i].astype(np.float64), True)
    for row, column in np.argwhere(labels["positive"]):
      x, y = 63.5 + 8 * (column - 4), 63.5 + 8 * (row - 4)
      left, top, right, bottom = out["ltrb"][i, row, column]
      predicted = (x - left, y - top, x + right, y + bottom)
      overlaps.append(iou_by_hand(predicted, box[i])[0])
      nwd = 0.5 * (1 - nwd_by_hand(predicted, box[i], 32)) if box_kind == "giou+nwd" else 0
      box_terms.append(1 - giou_by_hand(predicted, box[i]) + nwd)
      label = overlaps[-1] if quality_kind == "iou" else labels["centerness"][row, column]
      quality_terms.append(bce(out["quality_logit"][i, row, column], label))
  assert found["loss/box"] == pytest.approx(3 * np.mean(box_terms), rel=1e-4)
  assert found["loss/quality"] == pytest.approx(np.mean(quality_terms), rel=1e-4)
  assert found["iou"] == pytest.approx(np.mean(overlaps), rel=1e-4)
  assert found["loss/presence"] == pytest.approx(0.5 * bce(out["presence_logit"], present).mean(), rel=1e-4)
  assert set(found) == {"loss/class", "loss/box", "loss/quality", "loss/presence", "iou"}


@pytest.mark.parametrize("class_kind", ["focal", "balanced_bce"])
def test_a_batch_of_negatives_has_a_usual_loss(class_kind):
  """No positive cell at all: nothing is divided by (almost) nothing, and box and quality teach nothing."""
  config = small.config().loss
  config.class_kind = class_kind
  out, batch = outputs(), {"search_box_ltrb": np.zeros((16, 4), np.float32), "present": np.zeros(16, np.float32)}

  def total(out):
    found = losses.task_losses(out, batch, losses.label_counts(batch, SIDE, SEARCH), config, SEARCH)
    return sum(value for name, value in found.items() if name.startswith("loss/")), found

  (_, found), slopes = jax.value_and_grad(total, has_aux=True)(out)
  assert found["loss/box"] == found["loss/quality"] == found["iou"] == 0
  expected = optax.sigmoid_binary_cross_entropy(out["class_logit"], 0.0).sum()
  assert 0 < found["loss/class"] <= expected  # At most the plain sum over cells: not a millionfold.
  assert not slopes["ltrb"].any() and not slopes["quality_logit"].any()
  assert (np.asarray(slopes["class_logit"]) > 0).all() and (np.asarray(slopes["presence_logit"]) > 0).all()


def test_parts_of_a_batch_add_up_with_the_counts_of_the_whole():
  """What the layouts and gradient accumulation rely on."""
  config = small.config().loss
  box, present = labelled(4)
  batch, out = {"search_box_ltrb": box, "present": present.astype(np.float32)}, outputs(1)
  counts = losses.label_counts(batch, SIDE, SEARCH)
  whole = losses.task_losses(out, batch, counts, config, SEARCH)

  def half(tree, i):
    return jax.tree.map(lambda x: x[8 * i:8 * i + 8], tree)

  parts = [losses.task_losses(half(out, i), half(batch, i), jax.tree.map(lambda c: c / 2, counts), config, SEARCH)
           for i in range(2)]
  for name, value in whole.items():
    assert (parts[0][name] + parts[1][name]) / 2 == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.parametrize("option", sorted(losses.KINDS))
def test_unknown_kinds_are_refused(option):
  config = small.config().loss
  config[option] = "l1"
  box, present = labelled()
  batch = {"search_box_ltrb": box, "present": present.astype(np.float32)}
  with pytest.raises(UserError, match=f"loss.{option} is 'l1', expected one of "):
    losses.task_losses(outputs(), batch, losses.label_counts(batch, SIDE, SEARCH), config, SEARCH)
