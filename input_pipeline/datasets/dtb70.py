"""DTB70: `<sequence>/img/*.jpg` + `groundtruth_rect.txt`; attributes in the toolkit's `anno/att/<sequence>.txt`.

The toolkit (flyers/drone-tracking) has the same boxes again in `anno/`, and 11 flags per sequence: ten in the order of
its `perfPlot.m`, which leaves the last one out; by the paper's list of eleven (Li and Yeung, AAAI 2017) it is motion
blur. The toolkit is OTB's Matlab code: the top left pixel is (1, 1). Without frames, `anno` is enough.
"""

from input_pipeline.datasets.otb_family import OtbFamily

READER = OtbFamily(
    LAYOUT="folders <sequence>/ with img/ (image files) and groundtruth_rect.txt, or with anno/<sequence>.txt beside",
    ATTRIBUTES=("SV", "ARV", "OCC", "DEF", "FCM", "IPR", "OPR", "OV", "BC", "SOA", "MB"),
    ANNOS="anno")
