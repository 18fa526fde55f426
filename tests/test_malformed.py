"""Malformed labels and result files, through the way that a user's command takes: load, read, score.

Every kind in malformed_kinds.py has the outcome that stands beside it there. Whatever random damage does to the files,
no score comes out but the one that a few lines here compute from the damaged text by the documented rules.
"""

import json
import math
import pathlib
import re
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed_kinds import (
  FILES,
  FOLDERS,
  HARMLESS,
  JSON_LABEL_KINDS,
  JSON_LABELS,
  JSON_RESULT_KINDS,
  JSON_RESULTS,
  LABELS,
  LINES,
  REFUSED,
  RESULTS,
)

from dataset_files import write_text
from input_pipeline import datasets
from input_pipeline.errors import UserError
from siamdff_jax import results
from siamdff_jax.evaluation import protocols


def write(root, labels, tracked, suffix):
  """The files of one data set and one tracker, as text (.txt) or in the Anti-UAV form (.json)."""
  for name, text in labels.items():
    write_text(root / "labels" / name / ("groundtruth.txt" if suffix == ".txt" else "IR_label.json"), text)
  for name, text in tracked.items():
    write_text(root / "results" / f"{name}{suffix}", text)


def score(root, suffix=".txt"):
  """What `scripts/score.py` does: the overall numbers."""
  format = "plain" if suffix == ".txt" else "antiuav"
  sequences = datasets.load(format, root / "labels", frames=False)
  [tracked] = results.read_folder(root / "results", sequences, format)
  return protocols.evaluate("plain", sequences, tracked).metrics["overall"]


def by_hand(labels, tracked):
  """State accuracy and presence accuracy by the documented rules, from the files' contents; no part of the project."""
  accuracies, rights = [], []
  for name in labels:
    truth, flags = _rows(labels[name], "gt_rect")
    boxes, _ = _rows(tracked[name], "res", truth[0])
    assert len(truth) == len(boxes) == len(flags)
    values, right = [], []
    for true, flag, box in zip(truth, flags, boxes, strict=True):
      visible = bool(flag) and true is not None and true[2] > 0 and true[3] > 0
      values.append((_overlap(true, box) if box else 0) if visible else float(box is None))
      right.append(visible == (box is not None))
    accuracies.append(sum(values) / len(values))
    rights.append(sum(right) / len(right))
  return {"sa": sum(accuracies) / len(accuracies), "presence_accuracy": sum(rights) / len(rights)}


def _rows(content, key, start=None):
  """([box or None for absent], flags). `start`: the box of the frame that VOT's form writes as 1."""
  text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
  if text.lstrip()[:1] in ("{", "["):
    members = json.loads(text)
    members = members if isinstance(members, dict) else {key: members}
    rows = [row if isinstance(row, list) else [] for row in members[key]]
    flags = members.get("exist", [1] * len(rows)) if key == "gt_rect" else [1] * len(rows)
  else:
    lines = re.split("\r\n|\r|\n", text.rstrip())
    rows = [[float(x) for x in re.split(r"\s*[,;]\s*|\s+", line.strip(" \t,;"))] for line in lines]
    if rows[0] == [1] and start is not None:
      rows = [start if row == [1] else [] if len(row) == 1 else row for row in rows]
    flags = [1] * len(rows)
  assert all(len(row) in (0, 1, 4) for row in rows)
  return [row if len(row) == 4 and not any(map(math.isnan, row)) else None for row in rows], flags


def _overlap(a, b):
  a, b = [float(np.float32(x)) for x in a], [float(x) for x in b]  # Labels are held in single precision.
  width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  common = max(width, 0) * max(height, 0)
  return common / (a[2] * a[3] + b[2] * b[3] - common) if common else 0.0


def check(root, labels, tracked, suffix, outcome, named):
  """Scores the files in `root`, which hold `labels` and `tracked`. One of `named` is in the sentence of an error."""
  if outcome is REFUSED:
    with pytest.raises(UserError) as caught:
      score(root, suffix)
    sentence = str(caught.value)
    assert any(text in sentence for text in named) and len(sentence.splitlines()) == 1, sentence
    assert len(sentence) < 400 + 2 * len(str(root)), sentence
    return
  expected = by_hand(labels, tracked)
  assert (expected == by_hand(JSON_LABELS, JSON_RESULTS)) == (outcome is HARMLESS)
  found = score(root, suffix)
  assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def names(root, sequence, suffix):
  """What names the origin of a problem: a file, or where labels or a result do not fit a protocol, the sequence."""
  label_file = "groundtruth.txt" if suffix == ".txt" else "IR_label.json"
  files = root / "labels" / sequence / label_file, root / "results" / f"{sequence}{suffix}"
  return [*map(str, files), f"target of {sequence} is absent", f"times on {sequence}:"]


def check_content(root, where, content, suffix, outcome):
  """Puts `content` in place of the first sequence's labels or result."""
  labels, tracked = (dict(LABELS), dict(RESULTS)) if suffix == ".txt" else (dict(JSON_LABELS), dict(JSON_RESULTS))
  (labels if where == "labels" else tracked)["a"] = content
  write(root, labels, tracked, suffix)
  check(root, labels, tracked, suffix, outcome, names(root, "a", suffix))


def _case(where, kind, content, outcome):
  return pytest.param(where, content, outcome, id=f"{where}: {kind}")


def _cases(table):
  return [_case(where, kind, content, outcome) for kind, content, *outcomes in table
          for where, outcome in zip(("labels", "results"), outcomes, strict=True)]


@pytest.mark.parametrize("where, line, outcome", _cases(LINES))
def test_lines(tmp_path, where, line, outcome):
  text = (LABELS if where == "labels" else RESULTS)["a"]
  check_content(tmp_path, where, text.replace("12,21,8,6", line), ".txt", outcome)


@pytest.mark.parametrize("where, change, outcome", _cases(FILES))
def test_files(tmp_path, where, change, outcome):
  content = change((LABELS if where == "labels" else RESULTS)["a"].encode())
  check_content(tmp_path, where, content, ".txt", outcome)


@pytest.mark.parametrize("where, text, outcome", [
    *(_case("labels", *row) for row in JSON_LABEL_KINDS), *(_case("results", *row) for row in JSON_RESULT_KINDS)])
def test_json(tmp_path, where, text, outcome):
  check_content(tmp_path, where, text, ".json", outcome)


@pytest.mark.parametrize("change, named, outcome", [pytest.param(*row[1:], id=row[0]) for row in FOLDERS])
def test_folders(tmp_path, change, named, outcome):
  write(tmp_path, LABELS, RESULTS, ".txt")
  change(tmp_path)
  check(tmp_path, LABELS, RESULTS, ".txt", outcome, [str(tmp_path / named)] if named else [])


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_the_clean_score(tmp_path, suffix):
  write(tmp_path, *((LABELS, RESULTS) if suffix == ".txt" else (JSON_LABELS, JSON_RESULTS)), suffix)
  found = score(tmp_path, suffix)
  a = (1 + 1 + 1 + 6 * 6 / (2 * 48 - 36)) / 4
  b = (1 + 8 * 6 / (200 - 48)) / 2
  assert found["sa"] == pytest.approx((a + b) / 2, abs=1e-9) and found["presence_accuracy"] == 1


def test_every_kind_has_a_name_of_its_own():
  tables = (LINES, FILES, JSON_RESULT_KINDS, JSON_LABEL_KINDS, FOLDERS)
  assert all(len({row[0] for row in table}) == len(table) for table in tables)


# Random damage.


def _damage(content: bytes, kind: str, place: int, extra: int) -> bytes:
  """One change of a file; `place` and `extra` are any numbers."""
  lines = content.split(b"\n")
  i, j, at = place % len(lines), extra % len(lines), place % (len(content) + 1)
  if kind == "drop":
    return b"\n".join(lines[:i] + lines[i + 1:])
  if kind == "repeat":
    return b"\n".join(lines[:i + 1] + lines[i:])
  if kind == "swap":
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)
  if kind == "cut":
    return content[:at]
  if kind == "separators":
    lines[i] = lines[i].replace(b",", [b"\t", b";", b" ", b", ", b",,", b".", b"|"][extra % 7])
    return b"\n".join(lines)
  if kind == "insert":
    words = [b"nan", b"NaN", b"inf", b",", b"-", b"1", b"0", b"\n", b"e5", b"[]", b"\r", b" ", b"1\n",
             b"nan,nan,nan,nan\n"]
    return content[:at] + words[extra % len(words)] + content[at:]
  return content[:at] + bytes([extra % 256]) + content[at + 1:]


_DAMAGE = st.lists(st.tuples(st.sampled_from(["drop", "repeat", "swap", "cut", "separators", "insert", "byte"]),
                             st.integers(0, 10**4), st.integers(0, 10**4)), min_size=1, max_size=3)


@settings(max_examples=400, deadline=None)
@given(_DAMAGE, st.sampled_from([".txt", ".json"]), st.sampled_from(["labels", "results"]),
       st.sampled_from(sorted(LABELS)))
def test_no_damage_gives_a_wrong_score(damage, suffix, where, name):
  labels, tracked = (dict(LABELS), dict(RESULTS)) if suffix == ".txt" else (dict(JSON_LABELS), dict(JSON_RESULTS))
  files = labels if where == "labels" else tracked
  content = files[name].encode()
  for change in damage:
    content = _damage(content, *change)
  files[name] = content
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    write(root, labels, tracked, suffix)
    try:
      found = score(root, suffix)
    except UserError as error:
      sentence = str(error)
      assert len(sentence.splitlines()) == 1 and any(text in sentence for text in names(root, name, suffix)), sentence
      return
  expected = by_hand(labels, tracked)
  assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
