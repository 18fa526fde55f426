"""Folders of exports: what is exported is what tracks, and nothing damaged or mixed is handed to a runtime."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from conftest import ROOT

import small
from input_pipeline import geometry
from input_pipeline.errors import UserError
from siamdff_jax.checkpoints import safetensors
from siamdff_jax.export import folder as folders
from siamdff_jax.export import formats, onnx, passes, savedmodel, stablehlo
from siamdff_jax.tracking.crops import crop
from siamdff_jax.tracking.load import load_tracker
from siamdff_jax.tracking.settings import PLAIN

SIDE = 79  # Of the search crops; the network was trained with 71.
FILES = {"stablehlo": ["search.stablehlo", "template.stablehlo"], "tflite": ["search.tflite", "template.tflite"],
         "onnx": ["search.onnx", "template.onnx"],
         "savedmodel": ["fingerprint.pb", "saved_model.pb", "variables/variables.data-00000-of-00001",
                        "variables/variables.index"]}
KINDS = [*FILES][:3] + [pytest.param("savedmodel", marks=pytest.mark.slow)]
EXPORT = {"stablehlo": stablehlo.export, "tflite": savedmodel.export_tflite, "onnx": onnx.export,
          "savedmodel": savedmodel.export_savedmodel}
LOAD = {"stablehlo": lambda live, folder: stablehlo.load(folder), "tflite": savedmodel.load_tflite,
        "onnx": onnx.load, "savedmodel": savedmodel.load_savedmodel}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Of a training whose config asks for wider search crops."""
  config = small.config(**small.PLAIN)
  config.model.update(template_side=63, search_side=71)
  config.tracker = PLAIN.replace(search_side=SIDE, presence_bias=0.25, tiles=3).to_dict()
  return small.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), config)


@pytest.fixture(scope="module")
def live(checkpoint):
  if jax.default_backend() != "cpu":
    pytest.skip("exports are made on the CPU (JAX_PLATFORMS=cpu)")
  return passes.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def exported(live, tmp_path_factory):
  """By format, the folder of its export; not to be changed."""
  made = {}

  def export(kind):
    if kind == "onnx":
      pytest.importorskip("jax2onnx", reason="the extra of requirements-export.txt is not installed")
    if kind not in made:
      made[kind] = tmp_path_factory.mktemp(kind)
      EXPORT[kind](live, str(made[kind]))
    return made[kind]

  return export


def copied(folder, tmp_path):
  return shutil.copytree(folder, tmp_path / "copy")


def edit(folder, change, sign=True):
  """Changes the manifest, as its writer would (with `sign`) or as an accident."""
  manifest = json.loads((folder / "manifest.json").read_text())
  change(manifest)
  if sign:
    del manifest["sha256"]
    manifest["sha256"] = folders._digest(manifest)
  (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_search_pass_has_the_trackers_own_side(checkpoint, live, exported):
  """What the exported passes say of a frame's crops is what the tracker sees in its window."""
  tracker, variables = load_tracker(checkpoint)
  assert tracker.sides.search == SIDE != tracker.model.search_side
  frame = np.random.default_rng(0).integers(0, 256, (120, 160), np.uint8)
  box, size = np.array([70.0, 50, 12, 9], np.float32), np.array([120, 160], np.int32)
  state = jax.jit(tracker.init)(variables, frame, box)
  window = np.asarray(tracker.search_window(state, size))
  seen = jax.jit(tracker.see)(variables, state, frame, size, window[None])

  run = stablehlo.load(str(exported("stablehlo")))
  about = geometry.template_window(geometry.center_wh_to_xywh(np.asarray(state.belief.center_wh)))
  template = crop(frame, about, 63, size)[None, ..., None] / 255
  encoded = run["template"](template, state.belief.center_wh[None, 2:] * 63 / about[2])
  search = crop(frame, window, SIDE, size)[None, ..., None] / 255
  class_logit, quality_logit, ltrb, presence = run["search"](*encoded, search)

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  np.testing.assert_allclose(sigmoid(class_logit) * sigmoid(quality_logit), seen.cell_score, rtol=1e-4)
  np.testing.assert_allclose(presence, seen.presence_logit, rtol=1e-4, atol=1e-5)
  # The size of a box in frame pixels, by the manifest's "crops": window = template window * search_side/template_side.
  assert window[2] == pytest.approx(about[2] * SIDE / 63, rel=1e-6)
  np.testing.assert_allclose((ltrb[..., :2] + ltrb[..., 2:]) * window[2] / SIDE, seen.wh, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_has_that_side_and_says_so(live, exported, kind):
  folder = exported(kind)
  batch = 1 if kind == "tflite" else 2
  differences = passes.max_differences(live, LOAD[kind](live, str(folder)), batch=batch)
  assert max(differences.values()) <= 1e-4
  manifest = json.loads((folder / "manifest.json").read_text())
  assert manifest["images"]["search_side"] == SIDE and manifest["images"]["template_side"] == 63
  assert manifest["passes"]["search"]["inputs"][-1]["shape"] == ["batch", SIDE, SIDE, 1]
  assert f"{SIDE}/63" in manifest["crops"] and f"search_side/2 = {SIDE / 2}" in manifest["ltrb"]
  cells = manifest["passes"]["search"]["outputs"][0]["shape"]
  assert cells[1] == 3  # (79 - 7) / 8 = 9 cells of the search crop, less 7 of the template, and the first.
  assert "presence_bias" in manifest["presence"] and manifest["tracker"]["belief"]["presence_bias"] == 0.25
  assert [*manifest["files"]] == FILES[kind]
  assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def damaged(path, kind):
  content = path.read_bytes()
  if kind == "missing":
    path.unlink()
  elif kind == "cut":
    path.write_bytes(content[:len(content) // 2])
  elif kind == "empty":
    path.write_bytes(b"")
  elif kind == "longer":
    path.write_bytes(content + b"\0")
  else:
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:])


@pytest.mark.parametrize("how, message", [
    ("missing", "missing, manifest.json names it"), ("cut", r"damaged, it has \d+ bytes and manifest.json says \d+"),
    ("empty", "damaged, it has 0 bytes"), ("longer", "damaged, it has"),
    ("one bit", "damaged, its SHA-256 is not that in manifest.json; export it again")])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_before_a_runtime_opens_the_file(live, exported, tmp_path, kind, how, message):
  for number, name in enumerate(FILES[kind]):
    folder = shutil.copytree(exported(kind), tmp_path / str(number))
    damaged(folder / name, how)
    with pytest.raises(UserError, match=f"{folder / name}: {message}"):
      LOAD[kind](live, str(folder))


def test_a_damaged_manifest_is_named(live, exported, tmp_path):
  good = exported("stablehlo")
  text = (good / "manifest.json").read_text()
  folder = copied(good, tmp_path)
  path = folder / "manifest.json"

  def load():
    return stablehlo.load(str(folder))

  for content, message in (
      (text[:len(text) // 2], "damaged, it is not JSON"), ("", "damaged, it is not JSON"), ("[1]", "a JSON object"),
      ("{}", "of an export as None, expected jax.export"),
      (text.replace('"std": 0.2', '"std": 0.3'), "damaged, its content")):
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path}: .*{message}"):
      load()
  path.write_bytes(b"\xff\xfe")
  with pytest.raises(UserError, match="damaged, it is not JSON"):
    load()
  path.unlink()
  with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
    load()
  path.write_text(text)
  edit(folder, lambda manifest: manifest["files"].pop("search.stablehlo"))
  with pytest.raises(UserError, match=r"does not name search\.stablehlo"):
    load()


def test_exports_without_hashes_are_refused_with_the_reason(live, exported, tmp_path):
  folder = copied(exported("tflite"), tmp_path)
  edit(folder, lambda manifest: [manifest.pop(key) for key in ("files", "sha256")], sign=False)
  with pytest.raises(UserError, match=r"manifest\.json: without the SHA-256 of its files, as earlier versions"):
    savedmodel.load_tflite(live, str(folder))
  savedmodel.export_tflite(live, str(folder))  # They can be replaced.
  savedmodel.load_tflite(live, str(folder))


def test_an_export_of_another_side_or_format_is_told_apart(checkpoint, live, exported):
  narrow = passes.from_checkpoint(checkpoint, ["search_side=0"])
  with pytest.raises(UserError, match=r"another network or search side: search has .*79, 79, 1\], here .*71"):
    savedmodel.load_tflite(narrow, str(exported("tflite")))
  with pytest.raises(UserError, match="of an export as TFLite, expected SavedModel"):
    savedmodel.load_savedmodel(live, str(exported("tflite")))


def test_a_folder_never_holds_a_mix(live, exported, tmp_path, monkeypatch):
  folder = copied(exported("stablehlo"), tmp_path)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  with pytest.raises(UserError, match="is not of an export as TFLite but of one as jax.export .* another --out"):
    savedmodel.export_tflite(live, str(folder))
  replace = os.replace

  def breaks(source, target):
    if os.path.basename(target) == "template.stablehlo":
      raise OSError(28, "No space left on device")
    replace(source, target)

  with monkeypatch.context() as patched:
    patched.setattr(jax, "jit", lambda f: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=f"{folder}: cannot be written .No space"):
      stablehlo.export(live, str(folder))
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # Nothing was touched yet.
  with monkeypatch.context() as patched:
    patched.setattr(os, "replace", breaks)
    with pytest.raises(UserError, match=f"{folder}: cannot be written .No space"):
      stablehlo.export(live, str(folder))
  with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):  # Half of each: not loaded.
    stablehlo.load(str(folder))
  assert sorted(os.listdir(folder)) == ["search.stablehlo", "template.stablehlo"]
  stablehlo.export(live, str(folder))
  stablehlo.load(str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_can_be_written_is_found_before_the_conversion(live, tmp_path, monkeypatch, kind):
  if kind == "onnx":
    pytest.importorskip("jax2onnx", reason="the extra of requirements-export.txt is not installed")
  (tmp_path / "file").write_text("")

  def refuses(*arrays):
    pytest.fail("converted first")

  broken = live._replace(functions={name: refuses for name in passes.NAMES})
  for out in ("file", "file/below"):
    with pytest.raises(UserError, match=f"{tmp_path / out}: cannot be written"):
      EXPORT[kind](broken, str(tmp_path / out))


def test_settings_go_with_the_weights(checkpoint, tmp_path):
  if jax.default_backend() != "cpu":
    pytest.skip("exports are made on the CPU (JAX_PLATFORMS=cpu)")
  out = str(tmp_path / "x.safetensors")
  formats.export(checkpoint, "safetensors", out, "float32", settings=["search_side=87", "size_rate=0.5"])
  settings = load_tracker(out)[0].settings
  assert settings == PLAIN.replace(search_side=87, size_rate=0.5, tiles=3, presence_bias=0.25)
  with pytest.raises(UserError, match="search_side=73: expected 8 n"):
    formats.export(checkpoint, "safetensors", out, settings=["search_side=73"])
  for options in ({"dtype": "float16"}, {"notes": {"licence": "CC0"}}):
    with pytest.raises(UserError, match="--dtype and --note are for --format=safetensors; onnx holds float32"):
      formats.export(checkpoint, "onnx", str(tmp_path / "out"), **options)
  assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_half_file(checkpoint, tmp_path, monkeypatch):
  config, variables = safetensors.load(os.path.join(ROOT, "siamdff_jax", "pretrained", "lite.safetensors"))

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "replace", full)
  with pytest.raises(UserError, match=r"x\.safetensors: cannot be written \(No space left on device\)"):
    safetensors.save(str(tmp_path / "x.safetensors"), config, variables)
  assert not list(tmp_path.iterdir())


def test_a_network_that_says_nothing_finite_is_refused():
  def template(image, wh):
    return tuple(image.sum((1, 2, 3)) * np.nan for _ in passes.ENCODED)

  def search(*arrays):
    return arrays[:len(passes.OUTPUTS)]

  inputs = {"template": {"template": (3, 3, 1), "template_wh": (2,)}, "search": {"search": (3, 3, 1)}}
  finite = {"template": lambda image, wh: [np.zeros(2)] * len(passes.ENCODED), "search": search}
  broken = passes.Passes({"template": template, "search": search}, inputs, {}, {})
  with pytest.raises(UserError, match="the network's feature.* is not finite"):
    passes.max_differences(broken, finite, batch=2)
