"""The benchmarks' formats, on folders that mimic the real ones with their oddities, and one check of each."""

import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_files import BOXES, LAYOUTS, ROWS, write_images, write_numbered, write_text
from input_pipeline import datasets
from input_pipeline.datasets import lasot, uav123
from input_pipeline.datasets.formats import FORMATS
from input_pipeline.errors import UserError


def names(sequences):
  return [sequence.name for sequence in sequences]


def by_name(format, root, **options):
  return {sequence.name: sequence for sequence in datasets.load(format, root, **options)}


@pytest.fixture(name="roots", scope="module")
def _roots(tmp_path_factory):
  """Format -> root; written once, not to be changed."""
  return {format: write(tmp_path_factory.mktemp(format)) for format, write in LAYOUTS.items()}


# --- What comes out -----------------------------------------------------------------------------------------------


def test_cst_antiuav(roots):
  sequences = by_name("cst_antiuav", roots["cst_antiuav"])
  assert list(sequences) == ["building_1", "urban-areas_24"]
  np.testing.assert_array_equal(sequences["building_1"].boxes, np.float32(BOXES))
  assert sequences["building_1"].attributes == ("SV", "TC", "TS", "SS")
  urban = sequences["urban-areas_24"]
  np.testing.assert_allclose(urban.boxes, [[39.202923, 8.107276, 6.623951, 5.2915676], [0] * 4, [0, .25, 10, 9]])
  assert urban.visible.tolist() == [True, False, True] and urban.shape == (48, 64)
  assert urban.attributes == ("OC", "OV", "SV", "DBC", "CDB", "FM", "TS", "NS")
  annotations = datasets.load("cst_antiuav", roots["cst_antiuav"] / "annos", frames=False)
  assert names(annotations) == ["building_1", "urban-areas_24"] and annotations[0].shape is None


def test_lsotb_tir(roots):
  sequences = by_name("lsotb_tir", roots["lsotb_tir"])
  assert list(sequences) == ["bat_H_001", "car_V_001"]
  for sequence in sequences.values():
    np.testing.assert_array_equal(sequence.boxes, np.float32(BOXES))
  assert sequences["bat_H_001"].attributes == ("OV", "SV", "FM", "MB", "HH")
  assert names(datasets.load("lsotb_tir", roots["lsotb_tir"].parent / "anno", frames=False)) == ["bat_H_001"]


def test_ptb_tir_reads_the_toolkits_corrected_labels(roots):
  sequence, = datasets.load("ptb_tir", roots["ptb_tir"])
  np.testing.assert_array_equal(sequence.boxes, np.float32(BOXES))
  assert sequence.attributes == ("DEF", "OCC", "SV", "BC", "MB", "TC")


@pytest.mark.parametrize("below", ["", "val"])
def test_got10k(roots, below):
  sequences = datasets.load("got10k", roots["got10k"] / below)
  assert names(sequences) == ["GOT-10k_Val_000001", "GOT-10k_Val_000003"]
  for sequence in sequences:
    np.testing.assert_array_equal(sequence.boxes, [BOXES[0], [0] * 4, BOXES[2]])
    assert sequence.visible.tolist() == [True, False, True] and sequence.shape == (48, 64) and not sequence.mended
    assert {key: values.tolist() for key, values in sequence.frame_labels.items()} == {
        "absence": [0, 1, 0], "cover": [8, 0, 3], "cut_by_image": [0, 0, 1]}
  assert datasets.load("got10k", roots["got10k"], frames=False)[0].shape == (48, 64)
  assert len(datasets.load("got10k", roots["got10k"] / "val" / "GOT-10k_Val_000002")) == 1  # Asked for by its path.


def test_got10k_test_split_has_no_truth(tmp_path):
  folder = tmp_path / "test" / "GOT-10k_Test_000001"
  write_images(folder, names="{:08d}.jpg")
  write_text(folder / "groundtruth.txt", "11.0000,13.0000,8.0000,6.0000\n")
  write_text(tmp_path / "test" / "list.txt", "GOT-10k_Test_000001\n")
  for frames in (True, False):
    with pytest.raises(UserError, match="only the first frame has a box.*test split.*not public"):
      datasets.load("got10k", tmp_path, frames=frames)


def test_got10k_without_its_label_files_and_with_wrong_ones(tmp_path):
  write_images(tmp_path / "s")
  write_text(tmp_path / "s" / "groundtruth.txt", ROWS)
  sequence, = datasets.load("got10k", tmp_path)
  assert sequence.visible.all() and not sequence.frame_labels
  for name, content, problem in (
      ("cover.label", "8\n9\n8\n", "cover.label: frame 1 has the label '9', expected 0 to 8"),
      ("absence.label", "0\n1.0\n0\n", "absence.label: frame 1 has the label '1.0'"),
      ("absence.label", "0\n0\n", "2 visibility flags for 3 boxes"),
      ("cut_by_image.label", "0\n0\n", "2 labels cut_by_image for 3 boxes"),
      ("meta_info.ini", "[METAINFO]\nresolution: 64x48\n", "meta_info.ini: the resolution is '64x48'"),
      ("meta_info.ini", "[METAINFO]\nresolution: (65, 48)\n", "labels are for frames of 65x48 pixels.*has 64x48"),
  ):
    write_text(tmp_path / "s" / name, content)
    with pytest.raises(UserError, match=problem):
      datasets.load("got10k", tmp_path)
    assert datasets.check("got10k", tmp_path).num_errors == 1
    (tmp_path / "s" / name).unlink()


@pytest.mark.parametrize("flat", [False, True])
def test_lasot(tmp_path, flat):
  LAYOUTS["lasot"](tmp_path, flat)
  sequences = datasets.load("lasot", tmp_path)
  assert names(sequences) == ["airplane-1", "airplane-10", "bear-2"]
  for sequence in sequences:
    np.testing.assert_array_equal(sequence.boxes, [BOXES[0], [0] * 4, BOXES[2], [0] * 4])
    assert sequence.mended == {"visible frame with a zero box, taken as absent": 1,
                               "absent frame with a real box, box dropped": 1}
    assert sequence.frame_labels["full_occlusion"].tolist() == [0, 1, 0, 0]
    assert sequence.frame_labels["out_of_view"].tolist() == [0] * 4
  for frames in (True, False):
    assert names(datasets.load("lasot", tmp_path / "testing_set.txt", frames=frames)) == ["airplane-1", "bear-2"]


def test_lasot_one_class_and_one_sequence(roots):
  assert names(datasets.load("lasot", roots["lasot"] / "airplane")) == ["airplane-1", "airplane-10"]
  assert names(datasets.load("lasot", roots["lasot"] / "bear" / "bear-2")) == ["bear-2"]


def test_lasot_annotations_alone(tmp_path):
  annos = tmp_path / "annos"
  write_text(annos / "bear-2.txt", ROWS)
  write_text(annos / "absent" / "bear-2.txt", "0\n0\n1\n")
  write_text(annos / "att" / "bear-2.txt", "0,1,0,0,0,1,0,0,1,0,0,0,1,0\n")
  write_text(annos / "nlp" / "bear-2.txt", "a bear")
  write_text(tmp_path / "testing_set.txt", "bear-2\n")
  for root in (tmp_path, annos, annos / "bear-2.txt", tmp_path / "testing_set.txt"):
    sequence, = datasets.load("lasot", root, frames=False)
    assert sequence.visible.tolist() == [True, True, False] and sequence.frame_labels["absent"].tolist() == [0, 0, 1]
    assert sequence.attributes == ("POC", "ROT", "SV", "LR")


@pytest.mark.parametrize("name, content, problem", [
    ("full_occlusion.txt", "0,1,0\n", "4 boxes and 3 and 4 flags in full_occlusion.txt and out_of_view.txt"),
    ("out_of_view.txt", "0,2,0,0\n", "out_of_view.txt: frame 1 has the label '2', expected 0 to 1"),
    ("out_of_view.txt", None, "out_of_view.txt: cannot be read"),
    ("groundtruth.txt", None, "no labels, expected groundtruth.txt"),
])
def test_lasot_broken(tmp_path, name, content, problem):
  file = LAYOUTS["lasot"](tmp_path) / "bear" / "bear-2" / name
  file.unlink()
  if content is not None:
    write_text(file, content)
  with pytest.raises(UserError, match=problem):
    datasets.load("lasot", tmp_path)


def test_lists_name_what_is_there(tmp_path):
  write_text(LAYOUTS["lasot"](tmp_path / "lasot") / "testing_set.txt", "bear-2\nbear-4\n")
  with pytest.raises(UserError, match="testing_set.txt: bear-4 is listed, but neither"):
    datasets.load("lasot", tmp_path / "lasot" / "testing_set.txt")
  write_text(LAYOUTS["got10k"](tmp_path / "got") / "val" / "list.txt", "GOT-10k_Val_000001\nGOT-10k_Val_000009\n")
  with pytest.raises(UserError, match="list.txt: GOT-10k_Val_000009 is listed, but there is no such folder"):
    datasets.load("got10k", tmp_path / "got")


def test_lasot_images_beyond_the_labels_are_left_out_where_that_is_known(tmp_path, monkeypatch):
  monkeypatch.setitem(lasot._RANGES, "airplane-1", (1, 4))
  LAYOUTS["lasot"](tmp_path)
  write_images(tmp_path / "airplane" / "airplane-1" / "img", names="{:08d}.jpg", count=2, start=5)
  assert len(by_name("lasot", tmp_path)["airplane-1"].frames) == 4
  write_images(tmp_path / "bear" / "bear-2" / "img", names="{:08d}.jpg", count=2, start=5)
  with pytest.raises(UserError, match="4 boxes for 6 frames"):
    datasets.load("lasot", tmp_path)


def test_otb_ranges_and_several_targets(roots):
  sequences = by_name("otb", roots["otb"])
  assert list(sequences) == ["BlurCar1", "David", "Diving", "Human4", "Jogging.1", "Jogging.2", "Skating2.1",
                             "Skating2.2"]
  assert [path[-8:] for path in (sequences["David"].frames.paths[0], sequences["David"].frames.paths[-1])] == [
      "0300.jpg", "0770.jpg"]
  for name in ("BlurCar1", "Diving", "Human4", "Jogging.1", "Skating2.1"):
    np.testing.assert_array_equal(sequences[name].boxes, np.float32(BOXES))
  np.testing.assert_array_equal(sequences["Jogging.2"].boxes[:, 0], [20, 21, 22])
  assert sequences["Jogging.2"].frames.paths == sequences["Jogging.1"].frames.paths
  second, = datasets.load("otb", roots["otb"] / "Jogging" / "groundtruth_rect.2.txt")
  np.testing.assert_array_equal(second.boxes, sequences["Jogging.2"].boxes)
  assert names(datasets.load("otb", roots["otb"] / "Jogging", frames=False)) == ["Jogging.1", "Jogging.2"]


def test_otb_range_without_its_images(tmp_path):
  write_images(tmp_path / "David" / "img", names="{:04d}.jpg")
  write_text(tmp_path / "David" / "groundtruth_rect.txt", ROWS * 2)
  with pytest.raises(UserError, match="img: no image has a number from 300 to 770"):
    datasets.load("otb", tmp_path)


@pytest.mark.parametrize("below, expected", [
    ("", ["UAV123_bike1", "UAV20L_bike1", "person8", "person8_1", "person8_2"]),
    ("anno", ["UAV123_bike1", "UAV20L_bike1", "person8", "person8_1", "person8_2"]),
    ("anno/UAV123", ["bike1", "person8_1", "person8_2"]),
    ("anno/UAV20L", ["bike1", "person8"]),
    ("anno/UAV123/person8_2.txt", ["person8_2"]),
])
def test_uav123_sets(roots, below, expected):
  for frames in (True, False):
    assert names(datasets.load("uav123", roots["uav123"] / below, frames=frames)) == expected


def test_uav123_frames_and_labels(roots):
  sequences = by_name("uav123", roots["uav123"] / "anno" / "UAV123")
  np.testing.assert_array_equal(sequences["bike1"].boxes, [BOXES[0], [0] * 4, BOXES[2]])
  assert sequences["bike1"].visible.tolist() == [True, False, True]
  assert sequences["bike1"].attributes == ("SV", "FOC", "SOB")
  first, second = (sequences[f"person8_{i}"].frames.paths for i in (1, 2))
  assert (len(first), len(second)) == (1075, 451)
  assert first[-1] == second[0] and second[0].endswith("001075.jpg") and second[-1].endswith("001525.jpg")


def test_uav123_without_frames_or_with_too_few(tmp_path):
  write_text(tmp_path / "anno" / "UAV123" / "uav1_3.txt", "11,13,8,6\n" * 997)
  with pytest.raises(UserError, match=r"uav1_3.txt: no frames, expected image files in .*data_seq/UAV123/uav1"):
    datasets.load("uav123", tmp_path)
  write_numbered(tmp_path / "data_seq" / "UAV123" / "uav1", 2473, 2475, digits=6)
  with pytest.raises(UserError, match="997 boxes for 3 frames"):
    datasets.load("uav123", tmp_path)


def test_uav123_ranges_fit_the_long_sequences(data_root):
  """UAV20L labels the same folders whole: the last part of each ends with the folder."""
  with np.load(data_root / "conformance" / "UAV123_20L.npz") as known:
    lengths = {key[:-3]: len(known[key]) for key in known.files if key.endswith("/gt")}
  both = sorted(set(lengths) & set(uav123._RANGES))
  assert len(both) == 16
  for folder in both:
    assert uav123._RANGES[folder][-1][1] == lengths[folder]
  assert len(uav123._PARTS) == 51 and all(last > first for _, (first, last) in uav123._PARTS.values())


def test_dtb70(roots):
  sequence, = datasets.load("dtb70", roots["dtb70"])
  np.testing.assert_allclose(sequence.boxes, [BOXES[0], [9.125, 2.04, 13, 16], [0] * 4], rtol=1e-6)
  assert sequence.attributes == ("SV", "ARV", "SOA", "MB")


# --- All formats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", LAYOUTS)
def test_check_finds_no_error(roots, format):
  report = datasets.check(format, roots[format])
  assert report.num_errors == 0, report.lines()
  loaded = datasets.load(format, roots[format])
  assert [s.name for s in report.sequences] == names(loaded)
  for one, sequence in zip(report.sequences, loaded, strict=True):
    assert one.frames == one.labels == len(sequence) == len(sequence.frames)
    assert one.absent == int((~sequence.visible).sum()) and list(one.shapes) == [sequence.shape] == [(48, 64)]


@pytest.mark.parametrize("format", [name for name, reader in FORMATS.items() if hasattr(reader, "ATTRIBUTES")])
def test_attribute_names_are_unique(format):
  counts = {"antiuav410": 10, "cst_antiuav": 11, "lsotb_tir": 16, "ptb_tir": 10, "lasot": 14, "uav123": 12, "dtb70": 11}
  attributes = FORMATS[format].ATTRIBUTES
  assert len(set(attributes)) == len(attributes) == counts[format]


@pytest.mark.parametrize("format, att", [
    ("cst_antiuav", "annos/train/att/building_1.txt"), ("lsotb_tir", "anno/att/bat_H_001.txt"),
    ("uav123", "anno/UAV123/att/bike1.txt"), ("dtb70", "anno/att/Animal1.txt")])
def test_wrong_number_of_attribute_flags(tmp_path, format, att):
  root = LAYOUTS[format](tmp_path)
  write_text(tmp_path / att, "0,1,0")
  with pytest.raises(UserError, match=f"{att}: expected .* flags .* in the order {FORMATS[format].ATTRIBUTES[0]},"):
    datasets.load(format, root, frames=False)


@pytest.mark.parametrize("format", LAYOUTS)
def test_only_opens_what_is_asked_for(tmp_path, format):
  root = LAYOUTS[format](tmp_path)
  *others, wanted = names(datasets.load(format, root, frames=False))
  assert names(datasets.load(format, root, only=[wanted])) == [wanted]
  with pytest.raises(UserError, match=r"no sequence x, y among the \d+ found there"):
    datasets.load(format, root, only=["y", wanted, "x"])
  assert datasets.load(format, root, only=others, frames=False) or not others


def test_only_does_not_read_the_others(tmp_path):
  write_text(tmp_path / "a.txt", "nonsense")
  write_text(tmp_path / "b.txt", ROWS)
  assert names(datasets.load("plain", tmp_path, frames=False, only={"b"})) == ["b"]


@pytest.mark.parametrize("format", LAYOUTS)
def test_broken_links_are_named(tmp_path, format):
  root = LAYOUTS[format](tmp_path)
  folder = root / "anno" / "UAV123" if format == "uav123" else root
  (folder / "zz.txt").symlink_to(tmp_path / "gone")
  for load in (datasets.load, datasets.check):
    with pytest.raises(UserError, match=r"zz.txt: a link to .*gone, which does not exist"):
      load(format, root)
  with pytest.raises(UserError, match=r"zz.txt: a link to .*gone, which does not exist"):
    datasets.load(format, folder / "zz.txt")


def test_linked_sequences_lists_and_label_folders(tmp_path):
  real = LAYOUTS["lsotb_tir"](tmp_path / "real")
  (tmp_path / "linked" / "sequences").mkdir(parents=True)
  for name in ("bat_H_001", "car_V_001"):
    (tmp_path / "linked" / "sequences" / name).symlink_to(real / name, target_is_directory=True)
  (tmp_path / "linked" / "anno").symlink_to(real.parent / "anno", target_is_directory=True)
  sequences = datasets.load("lsotb_tir", tmp_path / "linked" / "sequences")
  assert names(sequences) == ["bat_H_001", "car_V_001"] and sequences[0].attributes[-1] == "HH"


def test_names_are_composed(tmp_path):
  """A folder copied from macOS has decomposed names, the lists and label files from elsewhere composed ones."""
  composed, decomposed = (unicodedata.normalize(form, "дрон_й_é") for form in ("NFC", "NFD"))
  assert composed != decomposed
  write_images(tmp_path / "lsotb" / decomposed / "img")
  write_text(tmp_path / "lsotb" / "anno" / f"{composed}.txt", ROWS)
  write_text(tmp_path / "lsotb" / "anno" / "att" / f"{composed}.txt", ",".join("1" + "0" * 15))
  sequence, = datasets.load("lsotb_tir", tmp_path / "lsotb", only=[decomposed])
  assert sequence.name == composed and sequence.attributes == ("DEF",)
  write_images(tmp_path / "got" / decomposed)
  write_text(tmp_path / "got" / decomposed / "groundtruth.txt", ROWS)
  write_text(tmp_path / "got" / "list.txt", f"{composed}\n")
  assert names(datasets.load("got10k", tmp_path / "got")) == [composed]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(), st.text(alphabet="01248, \t\n;-NaN.é").map(str.encode)),
       name=st.sampled_from(["groundtruth.txt", "cover.label", "absence.label", "meta_info.ini"]))
def test_fuzz_got10k_files(tmp_path, content, name):
  folder = tmp_path / "s"
  write_text(folder / "groundtruth.txt", ROWS)
  for file, text in (("cover.label", "8\n8\n0\n"), ("absence.label", "0\n0\n1\n"), ("meta_info.ini", "[METAINFO]\n")):
    write_text(folder / file, text)
  write_text(folder / name, content)
  try:
    sequence, = datasets.load("got10k", tmp_path, frames=False)
  except UserError as error:
    assert str(folder) in str(error) and "\n" not in str(error)
    return
  assert np.isfinite(sequence.boxes).all()
  np.testing.assert_array_equal(sequence.visible, (sequence.boxes[:, 2:] > 0).all(axis=1))
  assert all(len(values) == len(sequence) for values in sequence.frame_labels.values())
