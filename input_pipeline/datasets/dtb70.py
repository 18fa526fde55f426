"""DTB70: `<sequence>/img/*.jpg` + `groundtruth_rect.txt`; attributes in the toolkit's `anno/att/<sequence>.txt`.

The toolkit (flyers/drone-tracking) has the same boxes again in `anno/`, and 11 flags per sequence: ten in the order of
its `perfPlot.m`, which leaves the last one out; by the paper's list of eleven (Li and Yeung, AAAI 2017) it is motion
blur. The toolkit is OTB's Matlab code: the top left pixel is (1, 1). Without frames, `anno` is enough.
"""

from input_pipeline.datasets import layout, otb_family

LAYOUT = "folders <sequence>/ with img/ (image files) and groundtruth_rect.txt, or with anno/<sequence>.txt beside"
ORIGIN = 1
ATTRIBUTES = ("SV", "ARV", "OCC", "DEF", "FCM", "IPR", "OPR", "OV", "BC", "SOA", "MB")
_ANNOS = "anno"

is_sequence = otb_family.is_sequence
find_media = otb_family.find_media


def find(root, frames):
  """The sequences below a root, see `layout.walk`."""
  return layout.walk(root, frames, is_sequence, _ANNOS)


def read_labels(path):
  """Labels of the sequence `path`, see `otb_family.read_labels`."""
  return otb_family.read_labels(path, ORIGIN, _ANNOS, ATTRIBUTES)
