"""Kinds of malformed (or merely unusual) labels and result files, for tests/test_malformed.py.

  LINES              one line of a text table: in labels and in results
  FILES              a text table as a whole: in labels and in results
  JSON_RESULT_KINDS  results in the Anti-UAV form
  JSON_LABEL_KINDS   labels in the Anti-UAV form
  FOLDERS            names, links, missing and surplus files

Outcomes: REFUSED, one sentence that names the file; HARMLESS, exactly the score of the clean files (another notation of
the same numbers); SCORED, another score, which the documented rules give.
"""

import os
import shutil
import unicodedata

import pytest

from dataset_files import write_text

REFUSED, HARMLESS, SCORED = "refused", "harmless", "scored"

LABELS = {"a": "10,20,8,6\n12,21,8,6\n0,0,0,0\n14,23,8,6\n", "bé": "30,40,10,10\n31,40,10,10\n"}
RESULTS = {"a": "10,20,8,6\n12,21,8,6\nnan,nan,nan,nan\n16,23,8,6\n", "bé": "30,40,10,10\n33,44,10,10\n"}
JSON_LABELS = {
    "a": '{"exist": [1, 1, 0, 1], "gt_rect": [[10,20,8,6], [12,21,8,6], [], [14,23,8,6]]}',
    "bé": '{"exist": [1, 1], "gt_rect": [[30,40,10,10], [31,40,10,10]]}'}
JSON_RESULTS = {"a": '{"res": [[10,20,8,6], [12,21,8,6], [], [16,23,8,6]]}',
                "bé": '{"res": [[30,40,10,10], [33,44,10,10]]}'}

# What stands in place of the second line, 12,21,8,6: (kind, line, in labels, in results).
LINES = [
    ("tabs", "12\t21\t8\t6", HARMLESS, HARMLESS),
    ("blanks", "  12 21   8 6 ", HARMLESS, HARMLESS),
    ("semicolons", "12;21;8;6", HARMLESS, HARMLESS),
    ("mixed separators", "12, 21\t8;6", HARMLESS, HARMLESS),
    ("a separator at the end", "12,21,8,6,", HARMLESS, HARMLESS),
    ("decimals", "12.0,21.,8.000000,006", HARMLESS, HARMLESS),
    ("exponents", "1.2e1,+2.1E+01,800e-2,0.6e1", HARMLESS, HARMLESS),
    ("a negative width", "12,21,-8,6", REFUSED, SCORED),
    ("a zero width", "12,21,0,6", SCORED, SCORED),
    ("four NaN", "NaN NaN NaN NaN", SCORED, SCORED),
    ("four zeros", "0,0,0,0", SCORED, SCORED),
    ("one NaN alone", "nan", SCORED, REFUSED),
    ("one NaN of four", "12,nan,8,6", REFUSED, REFUSED),
    ("NaN as old C libraries write it", "-1.#IND,-1.#IND,-1.#IND,-1.#IND", REFUSED, REFUSED),
    ("NaN with a payload", "nan(ind),nan(ind),nan(ind),nan(ind)", REFUSED, REFUSED),
    ("infinity", "12,21,inf,6", REFUSED, REFUSED),
    ("infinity spelled out", "12,-Infinity,8,6", REFUSED, REFUSED),
    ("a number that overflows", "12,21,8e999,6", REFUSED, REFUSED),
    ("a huge number", "12,21,8e7,6", REFUSED, REFUSED),
    ("a number of 100,000 digits", "1" * 100_000 + ",21,8,6", REFUSED, REFUSED),
    ("three columns", "12,21,8", REFUSED, REFUSED),
    ("five columns", "2,12,21,8,6", REFUSED, REFUSED),
    ("eight columns", "12,21,20,21,20,27,12,27", REFUSED, REFUSED),
    ("one number", "12", REFUSED, REFUSED),
    ("a code of VOT in an ordinary table", "2", REFUSED, REFUSED),
    ("a blank line in between", "", REFUSED, REFUSED),
    ("a line of separators", ",,,", REFUSED, REFUSED),
    ("a separator twice", "12,,21,8,6", REFUSED, REFUSED),
    ("a missing number", "12,,8,6", REFUSED, REFUSED),
    ("a separator in front", ",12,21,8,6", REFUSED, REFUSED),
    ("two separators at the end", "12,21,8,6,,", REFUSED, REFUSED),
    ("decimal commas", "12,0;21,0;8,0;6,0", REFUSED, REFUSED),
    ("decimal commas and tabs", "12,0\t21,0\t8,0\t6,0", REFUSED, REFUSED),
    ("thousands separators", "1,012,21,8,6", REFUSED, REFUSED),
    ("thousands apostrophes", "1'012,21,8,6", REFUSED, REFUSED),
    ("underscores in a number", "1_2,21,8,6", REFUSED, REFUSED),
    ("hexadecimal numbers", "0xc,0x15,0x8,0x6", REFUSED, REFUSED),
    ("hexadecimal floats", "0x1.8p3,21,8,6", REFUSED, REFUSED),
    ("Fortran exponents", "1.2d1,21,8,6", REFUSED, REFUSED),
    ("digits of another script", "١٢,٢١,٨,٦", REFUSED, REFUSED),
    ("full-width digits", "１２,21,8,6", REFUSED, REFUSED),
    ("a typographic minus", "\u221212,21,8,6", REFUSED, REFUSED),
    ("two signs", "--12,21,8,6", REFUSED, REFUSED),
    ("a complex number", "12+0j,21,8,6", REFUSED, REFUSED),
    ("booleans", "True,True,True,True", REFUSED, REFUSED),
    ("None", "None", REFUSED, REFUSED),
    ("a header", "x,y,w,h", REFUSED, REFUSED),
    ("a comment", "# 12,21,8,6", REFUSED, REFUSED),
    ("a comment behind", "12,21,8,6 # box", REFUSED, REFUSED),
    ("quotation marks", '"12","21","8","6"', REFUSED, REFUSED),
    ("brackets", "[12, 21, 8, 6]", REFUSED, REFUSED),
    ("a tuple", "(12, 21, 8, 6)", REFUSED, REFUSED),
    ("another separator", "12|21|8|6", REFUSED, REFUSED),
    ("a no-break space", "12\u00a021\u00a08\u00a06", REFUSED, REFUSED),
    ("a form feed", "12,21,8,6\f", REFUSED, REFUSED),
    ("a null byte", "12,21\0,8,6", REFUSED, REFUSED),
    ("a mark within", "\ufeff12,21,8,6", REFUSED, REFUSED),
    ("a line of a million characters", "12,21,8,6" + " " * 1_000_000 + "x", REFUSED, REFUSED),
]

# What becomes of a whole text table: (kind, bytes -> bytes, in labels, in results).
FILES = [
    ("a byte order mark", lambda b: b"\xef\xbb\xbf" + b, HARMLESS, HARMLESS),
    ("CRLF", lambda b: b.replace(b"\n", b"\r\n"), HARMLESS, HARMLESS),
    ("CR", lambda b: b.replace(b"\n", b"\r"), HARMLESS, HARMLESS),
    ("blank lines at the end", lambda b: b + b" \n\n\t\n", HARMLESS, HARMLESS),
    ("no newline at the end", lambda b: b.rstrip(), HARMLESS, HARMLESS),
    ("another separator on every line", lambda b: b.replace(b",", b"\t", 3).replace(b",", b";", 3), HARMLESS,
     HARMLESS),
    ("empty", lambda b: b"", REFUSED, REFUSED),
    ("blanks only", lambda b: b" \t\r\n \n", REFUSED, REFUSED),
    ("a mark only", lambda b: b"\xef\xbb\xbf", REFUSED, REFUSED),
    ("random bytes", lambda b: bytes(range(256)), REFUSED, REFUSED),
    ("a JPEG", lambda b: b"\xff\xd8\xff\xe0\x00\x10JFIF" + b, REFUSED, REFUSED),
    ("compressed", lambda b: b"\x1f\x8b\x08\x00" + b, REFUSED, REFUSED),
    ("null bytes at the end", lambda b: b + b"\0" * 512, REFUSED, REFUSED),
    ("UTF-16 with a mark", lambda b: b.decode().encode("utf-16"), REFUSED, REFUSED),
    ("UTF-16 without a mark", lambda b: b.decode().encode("utf-16-le"), REFUSED, REFUSED),
    ("Latin-1", lambda b: b + "é\n".encode("latin-1"), REFUSED, REFUSED),
    ("a missing frame", lambda b: b[b.index(b"\n") + 1:], REFUSED, REFUSED),
    ("an extra frame", lambda b: b + b"14,23,8,6\n", REFUSED, REFUSED),
    ("every frame twice", lambda b: b + b, REFUSED, REFUSED),
    ("the first frame only", lambda b: b[:b.index(b"\n")], REFUSED, REFUSED),
    ("cut within a line", lambda b: b[:-4], REFUSED, REFUSED),
    ("all on one line", lambda b: b.replace(b"\n", b" "), REFUSED, REFUSED),
    ("transposed", lambda b: b"10 12 0 14\n20 21 0 23\n8 8 0 8\n", REFUSED, REFUSED),
    ("a header", lambda b: b"x,y,w,h\n" + b, REFUSED, REFUSED),
    ("a blank first line", lambda b: b"\n" + b, REFUSED, REFUSED),
    ("frame numbers in front", lambda b: b"\n".join(b"%d,%s" % i for i in enumerate(b.split())), REFUSED, REFUSED),
    ("a page of HTML", lambda b: b"<!DOCTYPE html><html><body>404</body></html>\n", REFUSED, REFUSED),
    ("a Git LFS pointer", lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", REFUSED,
     REFUSED),
    ("JSON of another kind", lambda b: b'{"boxes": []}', REFUSED, REFUSED),
]

# Another content of a result in JSON: (kind, text, outcome).
JSON_RESULT_KINDS = [
    ("the bare list", "[[10,20,8,6], [12,21,8,6], [], [16,23,8,6]]", HARMLESS),
    ("absent as [0]", "[[10,20,8,6], [12,21,8,6], [0], [16,23,8,6]]", HARMLESS),
    ("absent as 0", "[[10,20,8,6], [12,21,8,6], 0, [16,23,8,6]]", HARMLESS),
    ("absent as NaN", "[[10,20,8,6], [12,21,8,6], [NaN,NaN,NaN,NaN], [16,23,8,6]]", HARMLESS),
    ("further keys", '{"res": [[10,20,8,6], [12,21,8,6], [], [16,23,8,6]], "fps": "9"}', HARMLESS),
    ("a mark and blanks", "\ufeff \n" + JSON_RESULTS["a"] + "\n\n", HARMLESS),
    ("absent as four zeros", "[[10,20,8,6], [12,21,8,6], [0,0,0,0], [16,23,8,6]]", SCORED),
    ("a missing frame", "[[10,20,8,6], [12,21,8,6], []]", REFUSED),
    ("an extra frame", "[[10,20,8,6], [12,21,8,6], [], [16,23,8,6], [16,23,8,6]]", REFUSED),
    ("empty", "", REFUSED), ("blanks only", " \n", REFUSED), ("null", "null", REFUSED), ("a number", "4", REFUSED),
    ("a string", '"res"', REFUSED), ("no boxes", '{"res": []}', REFUSED),
    ("another key", '{"boxes": [[1,2,3,4]]}', REFUSED),
    ("boxes by frame number", '{"res": {"0": [10,20,8,6]}}', REFUSED),
    ("cut off", JSON_RESULTS["a"][:-20], REFUSED), ("cut off by one", JSON_RESULTS["a"][:-1], REFUSED),
    ("two documents", JSON_RESULTS["a"] * 2, REFUSED),
    ("a comma too many", "[[10,20,8,6], [12,21,8,6], [], [16,23,8,6],]", REFUSED),
    ("single quotes", JSON_RESULTS["a"].replace('"', "'"), REFUSED),
    ("a comment", "// boxes\n" + JSON_RESULTS["a"], REFUSED),
    ("a key twice", '{"res": [[1,2,3,4]], ' + JSON_RESULTS["a"][1:], REFUSED),
    ("a text table named .json", RESULTS["a"], REFUSED),
    ("null as a box", "[[10,20,8,6], [12,21,8,6], null, [16,23,8,6]]", REFUSED),
    ("a boolean as a box", "[[10,20,8,6], [12,21,8,6], false, [16,23,8,6]]", REFUSED),
    ("an object as a box", "[[10,20,8,6], [12,21,8,6], {}, [16,23,8,6]]", REFUSED),
    ("two numbers", "[[10,20,8,6], [12,21], [], [16,23,8,6]]", REFUSED),
    ("five numbers", "[[10,20,8,6], [12,21,8,6,1], [], [16,23,8,6]]", REFUSED),
    ("nested lists", "[[[10,20,8,6]], [[12,21,8,6]], [[]], [[16,23,8,6]]]", REFUSED),
    ("numbers as strings", '[[10,20,8,6], ["12","21","8","6"], [], [16,23,8,6]]', REFUSED),
    ("booleans in a box", "[[10,20,8,6], [12,21,8,true], [], [16,23,8,6]]", REFUSED),
    ("null in a box", "[[10,20,8,6], [12,21,8,null], [], [16,23,8,6]]", REFUSED),
    ("one NaN of four", "[[10,20,8,6], [12,NaN,8,6], [], [16,23,8,6]]", REFUSED),
    ("infinity", "[[10,20,8,6], [12,21,Infinity,6], [], [16,23,8,6]]", REFUSED),
    ("a huge number", "[[10,20,8,6], [12,21,8e7,6], [], [16,23,8,6]]", REFUSED),
    ("a number of 400 digits", "[[10,20,8,6], [12,21,8,%s], [], [16,23,8,6]]" % ("6" * 400), REFUSED),
    ("a number of 5,000 digits", "[[10,20,8,6], [12,21,8,%s], [], [16,23,8,6]]" % ("6" * 5000), REFUSED),
    ("100,000 open brackets", "[" * 100_000, REFUSED),
    ("scores of another number", JSON_RESULTS["a"][:-1] + ', "score": [1, 1]}', REFUSED),
    ("scores that are no numbers", JSON_RESULTS["a"][:-1] + ', "score": ["1", "1", "1", "1"]}', REFUSED),
    ("starts beyond the end", JSON_RESULTS["a"][:-1] + ', "starts": [0, 4]}', REFUSED),
    ("a reset-based run", JSON_RESULTS["a"][:-1] + ', "starts": [0, 3]}', REFUSED),
]

# Another content of labels in JSON: (kind, text, outcome).
_EXIST = '"exist": [1, 1, 0, 1], "gt_rect": '
JSON_LABEL_KINDS = [
    ("absent as null", "{" + _EXIST + "[[10,20,8,6], [12,21,8,6], null, [14,23,8,6]]}", HARMLESS),
    ("absent as zeros", "{" + _EXIST + "[[10,20,8,6], [12,21,8,6], [0,0,0,0], [14,23,8,6]]}", HARMLESS),
    ("absent by the flag alone", "{" + _EXIST + "[[10,20,8,6], [12,21,8,6], [13,22,8,6], [14,23,8,6]]}", HARMLESS),
    ("absent by the box alone", '{"gt_rect": [[10,20,8,6], [12,21,8,6], [], [14,23,8,6]]}', HARMLESS),
    ("a mark", "\ufeff" + JSON_LABELS["a"], HARMLESS),
    ("a missing frame", '{"exist": [1, 1, 0], "gt_rect": [[10,20,8,6], [12,21,8,6], []]}', REFUSED),
    ("a missing flag", JSON_LABELS["a"].replace("[1, 1, 0, 1]", "[1, 1, 0]"), REFUSED),
    ("flags that are no flags", JSON_LABELS["a"].replace("[1, 1, 0, 1]", "[1, 1, 0, 2]"), REFUSED),
    ("flags as strings", JSON_LABELS["a"].replace("[1, 1, 0, 1]", '["1", "1", "0", "1"]'), REFUSED),
    ("absent in the first frame", JSON_LABELS["a"].replace("[1, 1, 0, 1]", "[0, 1, 0, 1]"), REFUSED),
    ("empty", "", REFUSED), ("null", "null", REFUSED), ("the bare list", "[[10,20,8,6]]", REFUSED),
    ("no boxes", '{"gt_rect": []}', REFUSED), ("cut off", JSON_LABELS["a"][:-9], REFUSED),
    ("three numbers", "{" + _EXIST + "[[10,20,8,6], [12,21,8], [], [14,23,8,6]]}", REFUSED),
    ("numbers as strings", "{" + _EXIST + '[[10,20,8,6], ["12","21","8","6"], [], [14,23,8,6]]}', REFUSED),
    ("booleans in a box", "{" + _EXIST + "[[10,20,8,6], [12,21,8,true], [], [14,23,8,6]]}", REFUSED),
    ("nested lists", "{" + _EXIST + "[[[10,20,8,6]], [[12,21,8,6]], [], [[14,23,8,6]]]}", REFUSED),
    ("a negative width", "{" + _EXIST + "[[10,20,8,6], [12,21,-8,6], [], [14,23,8,6]]}", REFUSED),
    ("infinity", "{" + _EXIST + "[[10,20,8,6], [12,21,Infinity,6], [], [14,23,8,6]]}", REFUSED),
    ("a huge number", "{" + _EXIST + "[[10,20,8,6], [12,21,8e7,6], [], [14,23,8,6]]}", REFUSED),
    ("a key twice", '{"gt_rect": [[1,2,3,4]], ' + JSON_LABELS["a"][1:], REFUSED),
    ("boxes under both keys", '{"gt": [[1,2,3,4]], ' + JSON_LABELS["a"][1:], REFUSED),
]


# Changes of the files in a root.


def _moved(source, target):
  return lambda root: (root / source).rename(root / target)


def _added(*paths, text="?"):
  return lambda root: [write_text(root / path, text) for path in paths]


def _removed(*paths):
  def change(root):
    for path in paths:
      shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()
  return change


def _linked(path, target=None):
  """The file or folder becomes a link to itself under another name outside, or to `target`."""
  def change(root):
    (root / path).rename(root / "elsewhere")
    (root / path).symlink_to(target or root / "elsewhere")
  return change


def _replaced_by_folder(path):
  def change(root):
    (root / path).unlink()
    (root / path).mkdir()
  return change


def _replaced_by_file(path):
  def change(root):
    shutil.rmtree(root / path)
    write_text(root / path, "?")
  return change


def _unreadable(path):
  def change(root):
    (root / path).chmod(0)
    if os.access(root / path, os.R_OK):
      pytest.skip("this user may read everything")
  return change


def _one_folder_deeper(root):
  (root / "results").rename(root / "inner")
  (root / "results").mkdir()
  (root / "inner").rename(root / "results" / "results")


def _exchanged(root):
  (root / "results/a.txt").rename(root / "kept")
  (root / "results/bé.txt").rename(root / "results/a.txt")
  (root / "kept").rename(root / "results/bé.txt")


def _repetitions(root):
  for name, text in RESULTS.items():
    (root / "results" / f"{name}.txt").unlink()
    for number in (1, 2):
      write_text(root / "results" / name / f"{name}_00{number}.txt", text)
  (root / "results" / "a" / "a_002.txt").unlink()


_NFD = unicodedata.normalize("NFD", "bé")

# What becomes of the files of the text form: (kind, change of the root, path that the sentence names, outcome).
FOLDERS = [
    ("a result of a further sequence", _added("results/c.txt"), None, HARMLESS),
    ("hidden and other files", _added("results/.a.txt", "results/a_time.txt", "results/times/a.txt"), None, HARMLESS),
    ("a link to a result", _linked("results/a.txt"), None, HARMLESS),
    ("a link to the results", _linked("results"), None, HARMLESS),
    ("a link to labels", _linked("labels/a/groundtruth.txt"), None, HARMLESS),
    ("a link to a sequence", _linked("labels/a"), None, HARMLESS),
    ("a result's name decomposed (NFD)", _moved("results/bé.txt", f"results/{_NFD}.txt"), None, HARMLESS),
    ("results one folder deeper", _one_folder_deeper, None, HARMLESS),
    ("a missing result", _removed("results/a.txt"), "results", REFUSED),
    ("no results", _removed("results/a.txt", "results/bé.txt"), "results", REFUSED),
    ("no folder of results", _removed("results"), "results", REFUSED),
    ("a file in place of the results", _replaced_by_file("results"), "results", REFUSED),
    ("a result's name in capitals", _moved("results/a.txt", "results/A.txt"), "results", REFUSED),
    ("a suffix in capitals", _moved("results/a.txt", "results/a.TXT"), "results", REFUSED),
    ("another suffix", _moved("results/a.txt", "results/a.csv"), "results", REFUSED),
    ("a blank in a result's name", _moved("results/a.txt", "results/a .txt"), "results", REFUSED),
    ("a result as text and as JSON", _added("results/a.json"), "results/a.json", REFUSED),
    ("a result here and one folder deeper", _added("results/results/a.txt"), "results/a.txt", REFUSED),
    ("both Unicode forms of a name", _added(f"results/{_NFD}.txt"), f"results/{_NFD}.txt", REFUSED),
    ("a broken link as a result", _linked("results/a.txt", "nowhere"), "results/a.txt", REFUSED),
    ("a link to itself", _linked("results/a.txt", "a.txt"), "results/a.txt", REFUSED),
    ("a folder in place of a result", _replaced_by_folder("results/a.txt"), "results/a.txt", REFUSED),
    ("a result that may not be read", _unreadable("results/a.txt"), "results/a.txt", REFUSED),
    ("a repetition that one sequence lacks", _repetitions, "results/a", REFUSED),
    ("the results of two sequences exchanged", _exchanged, "results/a.txt", REFUSED),
    ("corners instead of sizes", _added("results/a.txt", text="10,20,18,26\n" * 4), "results/a.txt", REFUSED),
    ("no labels at all", _removed("labels"), "labels", REFUSED),
    ("no sequences", _removed("labels/a", "labels/bé"), "labels", REFUSED),
    ("a sequence without labels", _removed("labels/a/groundtruth.txt"), "labels/a", REFUSED),
    ("labels under another name", _moved("labels/a/groundtruth.txt", "labels/a/gt.txt"), "labels/a", REFUSED),
    ("a broken link as labels", _linked("labels/a/groundtruth.txt", "nowhere"), "labels/a", REFUSED),
    ("a folder in place of labels", _replaced_by_folder("labels/a/groundtruth.txt"), "labels/a", REFUSED),
    ("labels that may not be read", _unreadable("labels/a/groundtruth.txt"), "labels/a", REFUSED),
]
