"""Result files: what is written comes back, what is bad is one UserError."""

import json
import os
import pathlib
import tempfile
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline.errors import UserError
from input_pipeline.sequences import from_labels
from siamdff_jax import results
from siamdff_jax.results import Result, reading

NAN = [np.nan] * 4
_COORDINATE = st.floats(-1e6, 1e6)
_ENTRY = st.one_of(st.none(), st.tuples(_COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE))


def _write(folder, name, text):
  path = folder / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_ENTRY, st.floats(0, 1)), min_size=1, max_size=20), st.booleans())
def test_round_trip_is_exact(frames, with_score):
  boxes = np.array([NAN if box is None else box for box, _ in frames])
  result = Result(boxes, score=[score for _, score in frames] if with_score else None)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "a.json")
    results.write(path, result, init=[1, 2, 3, 4])
    back = results.read(path)
    assert os.listdir(folder) == ["a.json"]  # No temporary file left.
  np.testing.assert_array_equal(back.boxes, boxes)
  np.testing.assert_array_equal(back.present, [box is not None for box, _ in frames])
  if with_score:
    np.testing.assert_array_equal(back.score, result.score)
  else:
    assert back.score is None


def test_the_written_form_is_anti_uav_json(tmp_path):
  result = Result([[1, 2, 3, 4], NAN, [0, 0, 0, 0]], score=[0.5, np.nan, 1])
  results.write(tmp_path / "a.json", result, init=np.array([9, 8, 7, 6], np.float32))
  assert json.loads((tmp_path / "a.json").read_text()) == {
      "res": [[1, 2, 3, 4], [], [0, 0, 0, 0]], "score": [0.5, None, 1], "present": [True, False, True],
      "init": [9, 8, 7, 6]}


def test_the_starts_of_a_reset_based_run_come_back(tmp_path):
  boxes = [[1, 2, 3, 4], NAN, NAN, [5, 6, 7, 8]]
  results.write(tmp_path / "a.json", Result(boxes, starts=(0, 3)))
  assert json.loads((tmp_path / "a.json").read_text())["starts"] == [0, 3]
  back = results.read(tmp_path / "a.json")
  assert back.starts == (0, 3)
  np.testing.assert_array_equal(back.boxes, boxes)


def test_a_box_that_is_said_to_be_absent_is_dropped():
  result = Result([[1, 2, 3, 4], [1, 2, 3, 4]], present=[True, False])
  np.testing.assert_array_equal(result.boxes, [[1, 2, 3, 4], NAN])


def test_results_that_contradict_themselves_are_refused():
  with pytest.raises(ValueError, match="differ"):
    Result([[1, 2, 3, 4]], present=[True, True])
  with pytest.raises(ValueError, match="differ"):
    Result([[1, 2, 3, 4]], score=[1, 2])
  with pytest.raises(ValueError, match="infinite"):
    Result([[1, 2, np.inf, 4]])
  for starts in [(), (1,), (0, 0), (0, 2)]:
    with pytest.raises(ValueError, match="starts"):
      Result([[1, 2, 3, 4]] * 2, starts=starts)


@pytest.mark.parametrize("text, expected", [
    ('{"res": [[1,2,3,4],[],[0],0,[0,0,0,0]]}', [[1, 2, 3, 4], NAN, NAN, NAN, [0] * 4]),  # Newer and older forms.
    ('[[1,2,3,4.5],[]]', [[1, 2, 3, 4.5], NAN]),
    ('\ufeff {"res": [[1,2,3,4]], "present": "unused"}', [[1, 2, 3, 4]]),
])
@pytest.mark.parametrize("name", ["a.json", "a.txt"])  # Benchmarks ship JSON that is named .txt.
def test_json_forms(tmp_path, text, expected, name):
  np.testing.assert_array_equal(results.read(_write(tmp_path, name, text)).boxes, expected)


@pytest.mark.parametrize("line", ["1,2,3.5,4", "1\t2\t3.5\t4", " 1 2  3.5 4 ", "1;2;3.5;4", "1, 2, 3.5, 4,",
                                  "1,\t2 3.5;4", "+1 2. 35e-1\t4.0E+0;", "01;02;03.50;004"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_forms(tmp_path, line, end):
  path = _write(tmp_path, "a.txt", end.join([line, "nan,nan,nan,nan", "0,0,0,0", "", ""]))
  result = results.read(path)
  np.testing.assert_array_equal(result.boxes, [[1, 2, 3.5, 4], NAN, [0] * 4])
  assert result.present.tolist() == [True, False, True]


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", "1,2,3,4\n1,2,3\n", "line 2"),
    ("a.txt", "1,2,3,4\n\n1,2,3,4\n", "line 2"),
    ("a.txt", "1,2,3,4\nx,y,w,h\n", "line 2"),
    ("a.txt", "1,2,nan,4\n", "line 1"),
    ("a.txt", "1,2,inf,4\n", "line 1"),
    ("a.txt", "1,2,1e300,4\n", "line 1"),
    ("a.txt", "1,2,1e999,4\n", "line 1"),
    ("a.txt", "1,,2,3,4\n", "line 1"),
    ("a.txt", ",1,2,3,4\n", "line 1"),
    ("a.txt", "1,2,3,4,,\n", "line 1"),
    ("a.txt", "1_0,2,3,4\n", "line 1"),
    ("a.txt", "\u0661,2,3,4\n", "line 1"),
    ("a.txt", "1,2,3,4\f1,2,3,4\n", "line 1"),
    ("a.txt", "1" * 100_000 + "x,2,3,4\n", "line 1"),
    ("a.txt", "1,2,3,4" + " " * 100_000 + "x\n", "line 1"),
    ("a.txt", " \n", "empty"),
    ("a.txt", b"\xff\xfe\x00\x01", "text file"),
    ("a.json", '{"res": [[1,2,3,4],[1,2,3]]}', "frame 1"),
    ("a.json", '{"res": [[1,2,3,"4"]]}', "frame 0"),
    ("a.json", '{"res": [[1,2,3,true]]}', "frame 0"),
    ("a.json", '{"res": [[1,2,3,1e999]]}', "frame 0"),
    ("a.json", '{"res": [null]}', "frame 0"),
    ("a.json", '{"res": [[1,2,3,%s]]}' % ("9" * 400), "frame 0"),
    ("a.json", '{"res": [[1,2,3,%s]]}' % ("9" * 5000), "JSON"),
    ("a.json", '{"res": [[1,2,3,4]], "score": [1, 2]}', "score"),
    ("a.json", '{"res": [[1,2,3,4]], "score": ["x"]}', "score of frame 0"),
    ("a.json", '{"res": [[1,2,3,4]], "score": [Infinity]}', "score of frame 0"),
    ("a.json", '{"res": [[1,2,3,4]], "res": [[5,6,7,8]]}', "twice"),
    ("a.json", '{"res": [[1,2,3,4]], "starts": [1]}', "starts"),
    ("a.json", '{"res": [[1,2,3,4]], "starts": [0, 1]}', "starts"),
    ("a.json", '{"res": [[1,2,3,4]], "starts": [0.0]}', "starts"),
    ("a.json", '{"res": [[1,2,3,4]], "starts": 0}', "starts"),
    ("a.json", "1,2,3,4\n", "JSON"),
    ("a.json", '{"res": []}', "no boxes"),
    ("a.json", '{"boxes": [[1,2,3,4]]}', "no boxes"),
    ("a.json", '{"res": [[1,2,3,4]', "JSON"),
    ("a.json", "[" * 100000, "JSON"),
    ("a.json", "", "JSON"),
])
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, message):
  path = _write(tmp_path, name, content)
  with pytest.raises(UserError, match=message) as caught:
    results.read(path)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 250


def test_a_missing_file_is_a_data_error(tmp_path):
  with pytest.raises(UserError, match="cannot be read"):
    results.read(tmp_path / "no.json")
  with pytest.raises(UserError, match="cannot be written"):
    results.write(tmp_path / "no" / "a.json", Result([[1, 2, 3, 4]]))


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                     lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@settings(max_examples=300, deadline=None)
@given(st.one_of(
    st.binary(max_size=60), st.text(max_size=60).map(str.encode),
    st.text("0123456789.,;-e nainf\t\r\n[]{}", max_size=60).map(str.encode),
    _JSON.map(lambda value: json.dumps({"res": value, "score": value}).encode()),
    _JSON.map(lambda value: json.dumps(value).encode())), st.sampled_from(["a.json", "a.txt"]))
def test_any_bytes_give_a_result_or_a_data_error(content, name):
  with tempfile.TemporaryDirectory() as folder:
    path = _write(pathlib.Path(folder), name, content)
    try:
      result = results.read(path)
    except UserError as error:
      assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
      assert len(result) and np.isfinite(result.boxes[result.present]).all()


# The quick way through a table and the careful one.


_FAST_WORD = st.one_of(
    st.integers(-10**8, 10**8).map(str), st.floats(-1e7, 1e7).map(repr), st.floats(-1e3, 1e3).map("{:.4f}".format),
    st.sampled_from(["1.", ".5", "+2", "-0", "1e3", "1E-3", "007", "1e999", "nan", "1_0", "-", "e5", "", "1 2"]))
_FAST_TABLE = st.builds(
    lambda rows, separator, pad, end, tail: end.join(pad + separator.join(row) + pad for row in rows) + tail,
    st.lists(st.lists(_FAST_WORD, min_size=4, max_size=4) | st.lists(_FAST_WORD, max_size=6), min_size=1, max_size=4),
    st.sampled_from([",", "\t", " ", ", ", "  ", " \t", ";", ",,", "\r"]), st.sampled_from(["", " ", "\t", ","]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), st.sampled_from(["", "\n", "\r\n", " \n\n", ",\n"]))


@settings(max_examples=500, deadline=None)
@given(st.one_of(_FAST_TABLE.map(str.encode), st.text("0123456789.eE+-,\t \n\r", max_size=40).map(str.encode)))
def test_the_quick_way_gives_what_the_careful_way_gives(content):
  quick = reading.regular_table(content)
  if quick is not None:
    careful, starts = reading._from_table("a.txt", content.decode())
    assert not starts
    np.testing.assert_array_equal(quick, careful)


def test_the_quick_way_takes_what_trackers_write():
  boxes = np.random.default_rng(0).uniform(-50, 600, (30, 4)).round(4)
  for separator in (",", "\t", " ", ", "):
    for end in ("\n", "\r\n"):
      content = end.join(separator.join(map(repr, map(float, box))) for box in boxes) + end
      np.testing.assert_array_equal(reading.regular_table(content.encode()), boxes)


# The two box forms.


@pytest.mark.parametrize("name, content", [
    ("a.txt", "10,20,15,26.5\nnan,nan,nan,nan\n-1,-2,-1,-2\n"),
    ("a.json", '{"res": [[10,20,15,26.5], [], [-1,-2,-1,-2]]}'),
])
def test_corners_become_sizes(tmp_path, name, content):
  result = results.read(_write(tmp_path, name, content), "xyxy")
  np.testing.assert_array_equal(result.boxes, [[10, 20, 5, 6.5], NAN, [-1, -2, 0, 0]])


def test_corners_in_the_wrong_order_are_refused(tmp_path):
  path = _write(tmp_path, "a.txt", "10,20,15,26\n10,20,5,6\n")
  with pytest.raises(UserError, match=r"a.txt: frame 1 is \[10.0, 20.0, 5.0, 6.0\], expected x1,y1,x2,y2"):
    results.read(path, "xyxy")
  with pytest.raises(UserError, match=r"a.txt: unknown box form 'cxcywh', expected one of xywh, xyxy"):
    results.read(path, "cxcywh")


@pytest.mark.parametrize("format, first", [("plain", [10, 10, 5, 5]), ("otb", [11, 11, 5, 5])])
def test_a_first_box_that_is_true_only_in_the_other_form(tmp_path, format, first):
  x, y, w, h = first
  _write(tmp_path, "s0.txt", f"{x},{y},{x + w},{y + h}\n100,100,110,120\n")
  [found] = results.read_folder(tmp_path, _sequences(2), format, "xyxy")
  origin = first[0] - 10
  np.testing.assert_array_equal(found["s0"].boxes, [[10, 10, 5, 5], [100 - origin, 100 - origin, 10, 20]])
  with pytest.raises(UserError, match="s0.txt: its first box is the true one when read as x1,y1,x2,y2"):
    results.read_folder(tmp_path, _sequences(2), format)
  _write(tmp_path, "s0.txt", f"{x},{y},{w},{h}\n1,1,2,2\n")
  with pytest.raises(UserError, match="s0.txt: frame 0"):
    results.read_folder(tmp_path, _sequences(2), format, "xyxy")
  _write(tmp_path, "s0.txt", "3,4,8,6\n1,1,2,2\n")  # Here both forms have sizes that are possible.
  sequences = [from_labels("s0", None, [[3 - origin, 4 - origin, 8, 6]] * 2, None, "test")]
  with pytest.raises(UserError, match="s0.txt: its first box is the true one when read as x,y,w,h"):
    results.read_folder(tmp_path, sequences, format, "xyxy")


# VOT's form.


VOT = "1\n1,2,3,4\n1,2,3,5\n2\n0\n0\n1\n5,6,7,8\n2"  # The got10k toolkit ends its files so, pysot with a newline.
VOT_BOXES = [NAN, [1, 2, 3, 4], [1, 2, 3, 5], NAN, NAN, NAN, NAN, [5, 6, 7, 8], NAN]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_vot_tables(tmp_path, end):
  result = results.read(_write(tmp_path, "a.txt", VOT.replace("\n", end or "\n") + end))
  np.testing.assert_array_equal(result.boxes, VOT_BOXES)
  assert result.starts == (0, 6)


@pytest.mark.parametrize("text, line", [
    ("1\n1\n", 2), ("1\n1,2,3,4\n1\n", 3), ("1\n1,2,3,4\n0\n", 3), ("1\n2\n1,2,3,4\n", 3), ("1\n2\n0\n2\n", 4),
    ("1\n3\n", 2), ("0\n1\n", 1), ("2\n", 1), ("1,2,3,4\n1\n", 2), ("1\n1,2\n", 2), ("1\nnan\n", 2)])
def test_vot_tables_in_an_impossible_order(tmp_path, text, line):
  with pytest.raises(UserError, match=f"a.txt: line {line} is"):
    results.read(_write(tmp_path, "a.txt", text))


def test_vot_starts_hold_the_true_box(tmp_path):
  _write_in(tmp_path / "baseline" / "s0" / "s0_001.txt", VOT)
  [found] = results.read_folder(tmp_path, _sequences(9))
  expected = np.array(VOT_BOXES)
  expected[[0, 6]] = [10, 10, 5, 5]
  np.testing.assert_array_equal(found["s0"].boxes, expected)
  assert found["s0"].starts == (0, 6) and found["s0"].present.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 0]
  absent = [from_labels("s0", None, [[10, 10, 5, 5]] * 6 + [NAN] * 3, None, "test")]
  with pytest.raises(UserError, match="s0_001.txt: the tracker was started in frame 6, .* absent"):
    results.read_folder(tmp_path, absent)


def test_an_absent_first_frame_stays_absent(tmp_path):
  """Only VOT's form says that a tracker was started where no box stands."""
  _write(tmp_path, "s0.json", '{"res": [[], [1,2,3,4]]}')
  _write(tmp_path, "s1.txt", "nan,nan,nan,nan\n1,2,3,4\n")
  [found] = results.read_folder(tmp_path, _sequences(2, 2))
  assert [result.present.tolist() for result in found.values()] == [[False, True]] * 2


def test_long_term_results_with_confidences(tmp_path):
  folder = tmp_path / "longterm" / "s0"
  _write_in(folder / "s0_001.txt", "1\n1,2,3,4\n5,6,7,8\n")
  _write_in(folder / "s0_001_confidence.value", "\n0.500000\n-1.25\n")
  _write_in(folder / "s0_time.txt", "0.01\n0.01\n0.01\n")
  [found] = results.read_folder(tmp_path, _sequences(3))
  np.testing.assert_array_equal(found["s0"].boxes, [[10, 10, 5, 5], [1, 2, 3, 4], [5, 6, 7, 8]])
  np.testing.assert_array_equal(found["s0"].score, [np.nan, 0.5, -1.25])
  for text, message in [("\n0.5\n", "2 lines for 3 boxes"), ("\n0.5\nx\n", "line 3"), ("\n\n0.5\n", "line 2"),
                        ("\n0.5\ninf\n", "line 3"), ("\n-1e999\n1\n", "line 2")]:
    _write_in(folder / "s0_001_confidence.value", text)
    with pytest.raises(UserError, match=f"s0_001_confidence.value: {message}"):
      results.read_folder(tmp_path, _sequences(3))


# Folders.


def _write_in(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  return _write(path.parent, path.name, text)


def _sequences(*lengths):
  return [from_labels(f"s{i}", None, [[10, 10, 5, 5]] * n, None, "test") for i, n in enumerate(lengths)]


def test_a_folder_of_results(tmp_path):
  results.write(tmp_path / "s0.json", Result([[1, 2, 3, 4]] * 2))
  _write(tmp_path, "s1.txt", "1,2,3,4\n")
  _write(tmp_path, "readme.md", "not a result")
  [found] = results.read_folder(tmp_path, _sequences(2, 1))
  assert {name: len(result) for name, result in found.items()} == {"s0": 2, "s1": 1}
  [found] = results.read_folder(tmp_path, _sequences(2, 1), "otb")  # Matlab's text is 1-based, JSON never is.
  assert found["s1"].boxes.tolist() == [[0, 1, 3, 4]] and found["s0"].boxes[0].tolist() == [1, 2, 3, 4]
  with pytest.raises(UserError, match="1 of 3 sequences: s2"):
    results.read_folder(tmp_path, _sequences(2, 1, 1))
  with pytest.raises(UserError, match=r"s1.txt: 1 boxes for the 2 labelled frames of s1"):
    results.read_folder(tmp_path, _sequences(2, 2))
  _write(tmp_path, "s1.json", "[[1,2,3,4]]")
  with pytest.raises(UserError, match="one result per sequence"):
    results.read_folder(tmp_path, _sequences(2, 1))
  with pytest.raises(UserError, match="no such folder"):
    results.read_folder(tmp_path / "none", _sequences(2, 1))


@pytest.mark.parametrize("path", [
    "s0.txt", "s0.json", "results/s0.json", "s0/s0_001.txt", "results/s0/s0_001.txt", "longterm/s0/s0_001.txt",
    "baseline/s0/s0_001.txt", "results/longterm/s0/s0_001.txt"])
def test_the_places_of_a_result(tmp_path, path):
  _write_in(tmp_path / path, "1,2,3,4\n" if path.endswith(".txt") else "[[1,2,3,4]]")
  for other in ("s0_time.txt", "times/s0_time.txt", "s0/s0_time.txt", "metrics.json", "results/s9.txt", "s0/notes.txt"):
    _write_in(tmp_path / other, "not read")
  [found] = results.read_folder(tmp_path, _sequences(1))
  np.testing.assert_array_equal(found["s0"].boxes, [[1, 2, 3, 4]])


@pytest.mark.parametrize("second", ["s0.json", "results/s0.json", "s0/s0_001.txt", "longterm/s0/s0_001.txt"])
def test_two_results_of_one_sequence(tmp_path, second):
  _write(tmp_path, "s0.txt", "1,2,3,4\n")
  _write_in(tmp_path / second, "1,2,3,4\n" if second.endswith(".txt") else "[[1,2,3,4]]")
  with pytest.raises(UserError, match="there is also .*, expected one result per sequence"):
    results.read_folder(tmp_path, _sequences(1))


def test_repetitions(tmp_path):
  for name in ("s0", "s1"):
    for number in (2, 1, 3):
      _write_in(tmp_path / name / f"{name}_00{number}.txt", f"{number},2,3,4\n")
  runs = results.read_folder(tmp_path, _sequences(1, 1))
  assert [[result.boxes[0, 0] for result in run.values()] for run in runs] == [[1, 1], [2, 2], [3, 3]]
  assert all(list(run) == ["s0", "s1"] for run in runs)
  (tmp_path / "s1" / "s1_002.txt").unlink()
  with pytest.raises(UserError, match="s1: repetitions 001, 003 of s1, expected 001, 002, 003 as other sequences have"):
    results.read_folder(tmp_path, _sequences(1, 1))


def test_names_are_compared_as_unicode_sees_them(tmp_path):
  name = unicodedata.normalize("NFC", "dr\u00f4ne")
  _write(tmp_path, unicodedata.normalize("NFD", name) + ".txt", "1,2,3,4\n")
  for form in ("NFC", "NFD"):
    sequence = from_labels(unicodedata.normalize(form, name), None, [[10, 10, 5, 5]], None, "test")
    [found] = results.read_folder(tmp_path, [sequence])
    assert list(found) == [sequence.name]
  _write(tmp_path, name + ".txt", "1,2,3,4\n")
  with pytest.raises(UserError, match="name looks the same"):
    results.read_folder(tmp_path, [sequence])
