"""Result files: what is written comes back, what is bad is one DataError."""

import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from input_pipeline.errors import DataError
from input_pipeline.sequences import from_labels
from siamdff_jax.evaluation import results
from siamdff_jax.evaluation.results import Result

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


@pytest.mark.parametrize("text, expected", [
    ('{"res": [[1,2,3,4],[],[0],0,[0,0,0,0]]}', [[1, 2, 3, 4], NAN, NAN, NAN, [0] * 4]),  # Newer and older forms.
    ('[[1,2,3,4.5],[]]', [[1, 2, 3, 4.5], NAN]),
    ('\ufeff {"res": [[1,2,3,4]], "present": "unused"}', [[1, 2, 3, 4]]),
])
@pytest.mark.parametrize("name", ["a.json", "a.txt"])  # Benchmarks ship JSON that is named .txt.
def test_json_forms(tmp_path, text, expected, name):
  np.testing.assert_array_equal(results.read(_write(tmp_path, name, text)).boxes, expected)


@pytest.mark.parametrize("line", ["1,2,3.5,4", "1\t2\t3.5\t4", " 1 2  3.5 4 ", "1;2;3.5;4", "1, 2, 3.5, 4,",
                                  "1,\t2 3.5;4"])
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
    ("a.json", '{"res": []}', "no boxes"),
    ("a.json", '{"boxes": [[1,2,3,4]]}', "no boxes"),
    ("a.json", '{"res": [[1,2,3,4]', "JSON"),
    ("a.json", "[" * 100000, "JSON"),
    ("a.json", "", "JSON"),
])
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, message):
  path = _write(tmp_path, name, content)
  with pytest.raises(DataError, match=message) as caught:
    results.read(path)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 250


def test_a_missing_file_is_a_data_error(tmp_path):
  with pytest.raises(DataError, match="cannot be read"):
    results.read(tmp_path / "no.json")
  with pytest.raises(DataError, match="cannot be written"):
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
    except DataError as error:
      assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
      assert len(result) and np.isfinite(result.boxes[result.present]).all()


def _sequences(*lengths):
  return [from_labels(f"s{i}", None, [[10, 10, 5, 5]] * n, None, "test") for i, n in enumerate(lengths)]


def test_a_folder_of_results(tmp_path):
  results.write(tmp_path / "s0.json", Result([[1, 2, 3, 4]] * 2))
  _write(tmp_path, "s1.txt", "1,2,3,4\n")
  _write(tmp_path, "readme.md", "not a result")
  found = results.read_folder(tmp_path, _sequences(2, 1))
  assert {name: len(result) for name, result in found.items()} == {"s0": 2, "s1": 1}
  found = results.read_folder(tmp_path, _sequences(2, 1), "otb")  # Matlab's text is 1-based, JSON never is.
  assert found["s1"].boxes.tolist() == [[0, 1, 3, 4]] and found["s0"].boxes[0].tolist() == [1, 2, 3, 4]
  with pytest.raises(DataError, match="1 of 3 sequences: s2"):
    results.read_folder(tmp_path, _sequences(2, 1, 1))
  with pytest.raises(DataError, match=r"s1.txt: 1 boxes for the 2 labelled frames of s1"):
    results.read_folder(tmp_path, _sequences(2, 2))
  _write(tmp_path, "s1.json", "[[1,2,3,4]]")
  with pytest.raises(DataError, match="one result per sequence"):
    results.read_folder(tmp_path, _sequences(2, 1))
  with pytest.raises(DataError, match="no such folder"):
    results.read_folder(tmp_path / "none", _sequences(2, 1))
