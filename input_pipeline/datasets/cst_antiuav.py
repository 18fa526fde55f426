"""CST Anti-UAV: `{train,val,test}/<sequence>/*.jpg` + `IR_label.json`, text labels and attributes in `annos/`.

Everything is as in `antiuav410`, but the boxes in the JSON stand under `gt`, and the attribute files hold other flags.
By the benchmark's repository (PCwenyue/CST-Anti-UAV) these are eleven flags and a last number, which its evaluation
does not use and we do not read (in its 220 files it goes from 2 to 6). Of the two orders that its scripts give to
the third and fourth flag, we take that of the evaluation by attribute, SV, TC: the third flag is set in all
sequences, and in all of them the target's area changes by more than 1.5. Boxes have fractions and reach down
to 0: they are 0-based.
"""

import pathlib

from input_pipeline.datasets import antiuav410, labels, layout

LAYOUT = antiuav410.LAYOUT
ORIGIN = 0
ATTRIBUTES = ("OC", "OV", "SV", "TC", "DBC", "CDB", "FM", "TS", "SS", "MS", "NS")

is_sequence = antiuav410.is_sequence
find_media = antiuav410.find_media


def find(root: pathlib.Path, frames: bool) -> list[layout.Found]:
  """The sequences below a root, see `layout.walk`."""
  return layout.walk(root, frames, is_sequence)


def read_labels(path: pathlib.Path) -> labels.Labels:
  """Labels of the sequence in the folder `path`, or of the text file `path`."""
  return antiuav410.labels_with(path, (*ATTRIBUTES, None))
