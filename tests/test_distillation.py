"""Distillers against formulas written down independently in numpy, and their properties."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from input_pipeline.errors import UserError
from siamdff_jax import distillation
from siamdff_jax.distillation import masks

KINDS = sorted(distillation.DISTILLERS)
LEVELS = (2, 4)  # Two levels are enough and compile faster.
SIDES = {"template": 7, "search": 15}
TEMPLATE_WH = np.array([[21.0, 14.0], [6.0, 33.0]], np.float32)
BOX = np.array([[50.0, 41.0, 77.0, 60.5], [3.0, 90.0, 9.0, 101.0]], np.float32)
PRESENT = np.ones(2, np.float32)


def network(seed: int, width: int, sides=SIDES, batch: int = 2) -> dict:
  """Random features in the form of `SiamDFF`'s output."""
  rng = np.random.default_rng(seed)

  def maps(n):
    return {level: rng.normal(size=(batch, n, n, width)).astype(np.float32) for level in LEVELS}

  return {f"{branch}_backbone": maps(side) for branch, side in sides.items()}


def distiller(kind: str, **options):
  return distillation.build(ml_collections.ConfigDict({"kind": kind, **options}))


@functools.cache
def functions(kind: str):
  """(terms, gradients of the sum of the terms times coefficients by name), jitted once per kind."""
  module = distiller(kind)
  terms = jax.jit(module.apply)

  @jax.jit
  def gradients(params, student, teacher, wh, box, present, coefficients):
    def loss(params, student, teacher):
      out = module.apply(params, student, teacher, wh, box, present)
      return sum(coefficients[name] * value for name, value in out.items())
    return jax.grad(loss, (0, 1, 2))(params, student, teacher)

  return terms, gradients


def parameters(kind: str, student: dict, teacher: dict, seed: int = 7) -> dict:
  """Random values everywhere: away from the zeros of the initialisation."""
  shapes = jax.eval_shape(distiller(kind).init, jax.random.key(0), student, teacher, TEMPLATE_WH, BOX, PRESENT)
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: (0.5 * rng.normal(size=x.shape)).astype(np.float32), shapes)


def edit(params: dict, name: str, change) -> dict:
  """`change(module name, leaf name, value)` on the leaves of modules whose name contains `name`."""
  out = {module: dict(leaves) for module, leaves in params.get("params", {}).items()}
  for module in [m for m in out if name in m]:
    out[module] = {leaf: change(module, leaf, value) for leaf, value in out[module].items()}
  return {"params": out} if out else {}


# The formulas, in float64 and one example at a time.


def softmax(x):
  e = np.exp(x - x.max())
  return e / e.sum()


def attentions(x, temperature):
  h, w, c = x.shape
  return (h * w * softmax(np.abs(x).mean(2).ravel() / temperature).reshape(h, w),
          c * softmax(np.abs(x).mean((0, 1)) / temperature))


def global_context(x, block):
  weights = softmax((x @ block["attention"]["kernel"] + block["attention"]["bias"]).ravel())
  context = weights @ x.reshape(-1, x.shape[2])
  hidden = context @ block["hidden"]["kernel"] + block["hidden"]["bias"]
  hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-6)
  hidden = np.maximum(hidden * block["LayerNorm_0"]["scale"] + block["LayerNorm_0"]["bias"], 0)
  return x + hidden @ block["out"]["kernel"] + block["out"]["bias"]


def centred(branch, i):
  """The box of example i in pixels from the centre of the crop."""
  if branch == "template":
    return np.concatenate([-TEMPLATE_WH[i], TEMPLATE_WH[i]]) / 2
  return BOX[i] - (8 * SIDES["search"] + 7) / 2


def cover_by_counting(box, side, fine=64):
  """The share of each cell inside the box, from the fine x fine points of each cell."""
  points = (np.arange(side * fine) + 0.5) * 8 / fine - 4 * side

  def inside(low, high):
    return ((points > low) & (points < high)).reshape(side, fine).mean(1)

  return np.outer(inside(box[1], box[3]), inside(box[0], box[2]))


def examples(student, teacher, params):
  """(branch, level, example, adapted student, teacher, module parameters) of all pairs in float64."""
  params = jax.tree.map(lambda x: x.astype(np.float64), params)["params"] if params else {}
  for branch in SIDES:
    for level in LEVELS:
      for i in range(len(PRESENT)):
        ours, theirs = (np.float64(x[f"{branch}_backbone"][level][i]) for x in (student, teacher))
        adapter = params.get(f"adapt_{branch}{level}")
        if adapter:
          ours = ours @ adapter["kernel"] + adapter["bias"]
        yield branch, level, i, ours, theirs, params


def fgd_by_hand(student, teacher, params):
  out = dict.fromkeys(("foreground", "background", "attention", "relation"), 0.0)
  for branch, level, i, s, t, p in examples(student, teacher, params):
    n = SIDES[branch]
    box = centred(branch, i) / 8 + n / 2
    low, high = np.maximum(np.floor(box[:2]), 0).astype(int), np.minimum(np.ceil(box[2:]), n).astype(int)
    inside = np.zeros((n, n), bool)
    inside[low[1]:high[1], low[0]:high[0]] = True
    (spatial_t, channel_t), (spatial_s, channel_s) = attentions(t, 0.8), attentions(s, 0.8)
    for name, region in (("foreground", inside), ("background", ~inside)):
      for y, x in np.argwhere(region):
        out[name] += spatial_t[y, x] * (channel_t * (t - s)[y, x] ** 2).sum() / region.sum() / 2
    out["attention"] += (np.abs(spatial_t - spatial_s).sum() + np.abs(channel_t - channel_s).sum()) / 2
    blocks = p[f"teacher_context_{branch}{level}"], p[f"student_context_{branch}{level}"]
    out["relation"] += ((global_context(t, blocks[0]) - global_context(s, blocks[1])) ** 2).sum() / 2
  weights = {"foreground": 1.6e-3, "background": 8e-4, "attention": 8e-4, "relation": 8e-6}
  return {name: weights[name] * value for name, value in out.items()}


def at_by_hand(student, teacher, params):
  total = 0.0
  for *_, s, t, _ in examples(student, teacher, params):
    q_s, q_t = ((x**2).sum(2).ravel() for x in (s, t))
    total += ((q_s / np.linalg.norm(q_s) - q_t / np.linalg.norm(q_t)) ** 2).mean() / 2
  return {"attention": 1000 * total}


def cwd_by_hand(student, teacher, params):
  total = 0.0
  for *_, s, t, _ in examples(student, teacher, params):
    for c in range(t.shape[2]):
      p, q = softmax(t[..., c].ravel() / 4), softmax(s[..., c].ravel() / 4)
      total += 16 * (p * np.log(p / q)).sum() / t.shape[2] / 2
  return {"channel": 0.2 * total}


def contextual_by_hand(student, teacher, params):
  out = dict.fromkeys(("feature_foreground", "feature_background", "attention", "context", "target_kl"), 0.0)
  maps, count = {}, 2 * len(LEVELS) * 2
  for branch, level, i, s, t, p in examples(student, teacher, params):
    rms = np.sqrt((t**2).mean())
    s, t = s / rms, t / rms
    maps[branch, level, i] = s, t
    cover = cover_by_counting(centred(branch, i), SIDES[branch])
    (spatial_t, channel_t), (spatial_s, channel_s) = attentions(t, 1.0), attentions(s, 1.0)
    error = spatial_t[..., None] * channel_t * (t - s) ** 2
    out["feature_foreground"] += (cover[..., None] * error).sum() / cover.sum() / t.shape[2] / count
    out["feature_background"] += ((1 - cover)[..., None] * error).sum() / (1 - cover).sum() / t.shape[2] / count
    out["attention"] += (np.abs(spatial_t - spatial_s).mean() + np.abs(channel_t - channel_s).mean()) / count
    blocks = p[f"teacher_context_{branch}{level}"], p[f"student_context_{branch}{level}"]
    out["context"] += ((global_context(t, blocks[0]) - global_context(s, blocks[1])) ** 2).mean() / count
  for level in LEVELS:
    for i in range(2):
      cover = cover_by_counting(centred("template", i), SIDES["template"])
      q, p = (response_by_hand(maps["template", level, i][k], cover, maps["search", level, i][k]) for k in (0, 1))
      out["target_kl"] += (p * np.log(p / q)).sum() / (2 * len(LEVELS))
  weights = {"feature_foreground": 0.5, "feature_background": 0.25, "attention": 0.5, "context": 0.25, "target_kl": 1}
  return {name: weights[name] * value for name, value in out.items()}


def response_by_hand(template, cover, search):
  descriptor = (cover[..., None] * template).sum((0, 1)) / cover.sum()
  cosine = search @ descriptor / np.linalg.norm(search, axis=-1) / np.linalg.norm(descriptor)
  return softmax(cosine.ravel() / 0.1)


BY_HAND = {"fgd": fgd_by_hand, "at": at_by_hand, "cwd": cwd_by_hand, "contextual": contextual_by_hand}


@pytest.mark.parametrize("kind", KINDS)
def test_terms_equal_the_formulas(kind):
  student, teacher = network(0, 8), network(1, 12)
  params = parameters(kind, student, teacher)
  got = functions(kind)[0](params, student, teacher, TEMPLATE_WH, BOX, PRESENT)
  expected = BY_HAND[kind](student, teacher, params)
  assert sorted(got) == sorted(expected)
  for name, value in expected.items():
    assert got[name].shape == () and got[name].dtype == jnp.float32
    # The points counted for the masks resolve 1/64 of a cell's side, the rest is float32.
    np.testing.assert_allclose(got[name], value, rtol=2e-4, err_msg=name)


def test_masks_against_counted_points():
  rng = np.random.default_rng(0)
  corner, size = rng.uniform(-20, 120, (40, 2)), rng.uniform(8, 60, (40, 2))
  box = np.concatenate([corner, corner + size], 1).astype(np.float32)
  got = masks.search_masks(jnp.asarray(box), jnp.ones(40), 15)
  for i in range(40):
    np.testing.assert_allclose(got.cover[i], cover_by_counting(box[i] - 63.5, 15), atol=0.04)
  touched = np.asarray(got.cover).sum((1, 2)) > 0
  np.testing.assert_allclose(got.foreground.sum((1, 2)), touched, atol=1e-5)
  np.testing.assert_allclose(got.background.sum((1, 2)), 1, atol=1e-5)
  wh = jnp.asarray(size, jnp.float32)
  for cover, (w, h) in zip(masks.template_masks(wh, 7).cover, size, strict=True):
    np.testing.assert_allclose(cover, cover_by_counting(np.array([-w, -h, w, h]) / 2, 7), atol=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_learn_from_oneself(kind):
  """Zero for every term; for the context terms this needs equal context blocks, as at initialisation."""
  teacher = network(1, 12)
  params = parameters(kind, teacher, teacher)

  def identity(module, leaf, value):
    return np.eye(12, dtype=np.float32) if leaf == "kernel" else 0 * value

  params = edit(params, "adapt", identity)
  params = edit(params, "student_context", lambda module, leaf, value:
                params["params"][module.replace("student", "teacher")][leaf])
  for name, value in functions(kind)[0](params, teacher, teacher, TEMPLATE_WH, BOX, PRESENT).items():
    assert abs(value) < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_parameters_and_student_but_not_the_teacher(kind):
  student, teacher = network(0, 8), network(1, 12)
  terms, gradients = functions(kind)
  params = parameters(kind, student, teacher)
  ones = dict.fromkeys(terms(params, student, teacher, TEMPLATE_WH, BOX, PRESENT), 1.0)
  by_params, by_student, by_teacher = gradients(params, student, teacher, TEMPLATE_WH, BOX, PRESENT, ones)
  for path, g in jax.tree_util.tree_leaves_with_path(by_params):
    path = jax.tree_util.keystr(path)
    assert np.isfinite(g).all(), path
    if "['attention']['bias']" not in path:  # A constant added to all logits of a softmax changes nothing.
      assert np.abs(g).max() > 1e-9, path
  for path, g in jax.tree_util.tree_leaves_with_path(by_student):
    assert np.isfinite(g).all() and (np.abs(g).max((1, 2, 3)) > 0).all(), path
  assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(by_teacher))


def test_context_blocks_start_at_zero():
  student, teacher = network(0, 8), network(1, 12)
  init = jax.jit(distiller("contextual").init)
  params = init(jax.random.key(0), student, teacher, TEMPLATE_WH, BOX, PRESENT)["params"]
  blocks = [leaves for name, leaves in params.items() if "context" in name]
  assert len(blocks) == 2 * 2 * len(LEVELS)  # Networks x branches x levels.
  assert all((np.asarray(leaf) == 0).all() for block in blocks for leaf in jax.tree.leaves(block["out"]))


@pytest.mark.parametrize("kind,width", [("fgd", 16), ("contextual", 8)])
def test_bottleneck_of_the_context_blocks(kind, width):
  """FGD's is half as wide as the features, ours a quarter."""
  shapes = jax.eval_shape(distiller(kind).init, jax.random.key(0), network(0, 8), network(1, 32), TEMPLATE_WH, BOX,
                          PRESENT)["params"]
  assert shapes["teacher_context_search4"]["hidden"]["kernel"].shape == (32, width)


@pytest.mark.parametrize("kind", ["contextual", "fgd"])
def test_absent_target(kind):
  """Where the target is absent its box is not looked at, the search branch is background, target_kl is silent."""
  student, teacher = network(0, 8), network(1, 12)
  params, (terms, gradients) = parameters(kind, student, teacher), functions(kind)
  present, void = np.array([0, 1], np.float32), np.array([np.full(4, np.nan), BOX[1]], np.float32)
  out = terms(params, student, teacher, TEMPLATE_WH, BOX, present)
  for name, value in terms(params, student, teacher, TEMPLATE_WH, void, present).items():
    assert np.isfinite(value) and value == out[name], name
  target_terms = {name for name in out if "foreground" in name or name == "target_kl"}
  for target in target_terms | {name for name in out if "background" in name}:
    one = {name: float(name == target) for name in out}
    _, by_student, _ = gradients(params, student, teacher, TEMPLATE_WH, void, present, one)
    for g in by_student["search_backbone"].values():
      silent = np.abs(g).max((1, 2, 3)) == 0
      assert list(silent) == [target in target_terms, False], target


def test_absent_targets_divide_by_all_examples():
  """Terms are means over examples, so a batch may be split over devices or accumulated."""
  student, teacher = network(0, 8), network(1, 12)
  params, terms = parameters("contextual", student, teacher), functions("contextual")[0]
  present = np.array([0, 1], np.float32)
  whole = terms(params, student, teacher, TEMPLATE_WH, BOX, present)

  def pick(i):
    return jax.tree.map(lambda x: x[[i, i]], (student, teacher, TEMPLATE_WH, BOX, present))

  parts = [terms(params, *pick(i)) for i in range(2)]
  for name, value in whole.items():
    np.testing.assert_allclose(value, (parts[0][name] + parts[1][name]) / 2, rtol=1e-5, err_msg=name)
  assert parts[0]["target_kl"] == 0


def test_contextual_does_not_depend_on_the_map_size():
  student, teacher = network(0, 8), network(1, 12)
  params, terms = parameters("contextual", student, teacher), functions("contextual")[0]

  def repeat(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)

  small, large = ((8 * n * SIDES["search"] + 7) / 2 for n in (1, 2))
  got = terms(params, jax.tree.map(repeat, student), jax.tree.map(repeat, teacher), 2 * TEMPLATE_WH,
              large + 2 * (BOX - small), PRESENT)
  for name, value in terms(params, student, teacher, TEMPLATE_WH, BOX, PRESENT).items():
    np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def test_contextual_does_not_depend_on_the_scale_of_the_teacher():
  student, teacher = network(0, 8), network(1, 12)
  params, terms = parameters("contextual", student, teacher), functions("contextual")[0]
  got = terms(edit(params, "adapt", lambda module, leaf, value: 20 * value), student,
              jax.tree.map(lambda x: 20 * x, teacher), TEMPLATE_WH, BOX, PRESENT)
  for name, value in terms(params, student, teacher, TEMPLATE_WH, BOX, PRESENT).items():
    np.testing.assert_allclose(got[name], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wh,box", [
    ((1, 1), (63, 63, 64, 64)),
    ((1e-3, 1e-3), (63, 63, 63.001, 63.001)),
    ((0, 0), (63, 63, 63, 63)),
    ((500, 500), (-400, -300, 800, 900)),
    ((3, 300), (300, 300, 340, 310)),
], ids=["pixel", "thousandth", "point", "larger_than_crop", "outside"])
def test_finite_for_extreme_boxes(kind, wh, box):
  student, teacher = network(0, 8), network(1, 12)
  student["search_backbone"][2] = 0 * student["search_backbone"][2]  # Dead features, as after a ReLU.
  params, (terms, gradients) = parameters(kind, student, teacher), functions(kind)
  arguments = params, student, teacher, np.float32([wh, wh]), np.float32([box, box]), PRESENT
  out = terms(*arguments)
  assert all(np.isfinite(value) and value >= 0 for value in out.values())
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients(*arguments, dict.fromkeys(out, 1.0))))


def test_different_grids_are_refused():
  student, teacher = network(0, 8), network(1, 12, {"template": 7, "search": 31})
  with pytest.raises(UserError, match=r"\(2, 15, 15, 8\).*\(2, 31, 31, 12\).*--config.model.search_side=255"):
    distiller("contextual").init(jax.random.key(0), student, teacher, TEMPLATE_WH, BOX, PRESENT)
  with pytest.raises(ValueError, match="must see the same batch"):
    distiller("contextual").init(jax.random.key(0), student, network(1, 12, batch=3), TEMPLATE_WH, BOX, PRESENT)


def test_build():
  assert distiller("none") is None
  assert distiller("cwd", temperature=2.0, target_temperature=None).temperature == 2.0
  with pytest.raises(UserError, match=r"'fdg'.*'fgd'"):
    distiller("fdg")
  with pytest.raises(UserError, match=r"'at' has no option .*'temperature'"):
    distiller("at", temperature=2.0)


def test_weights_are_by_term_and_unknown_ones_refused():
  student, teacher = network(0, 8), network(1, 12)
  arguments = student, teacher, TEMPLATE_WH, BOX, PRESENT
  default = distiller("at").apply({}, *arguments)["attention"]
  np.testing.assert_allclose(distiller("at", weights={"attention": 10.0}).apply({}, *arguments)["attention"],
                             default / 100, rtol=1e-6)
  with pytest.raises(UserError, match=r"'feature'.*'attention'"):
    distiller("at", weights={"feature": 1.0}).apply({}, *arguments)
