"""LSOTB-TIR (evaluation set): `<sequence>/img/*.jpg` + labels in `anno/` or in the sequence's folder.

The toolkit (QiaoLiuHit/LSOTB-TIR) keeps the sequences in `sequences/`, the boxes in `anno/<sequence>.txt`, and the
attributes in `anno/att/<sequence>.txt`: 12 challenges and 4 scenarios, in the order of its `run_evaluation.m`, whose
names are abbreviated here (the scenarios are vehicle-mounted, drone-mounted, surveillance and hand-held). The toolkit
is OTB's Matlab code: the top left pixel is (1, 1). The root is the folder of the sequences; without frames, `anno` is
enough. The training set, with its XML files, is another format.
"""

from input_pipeline.datasets.otb_family import OtbFamily

READER = OtbFamily(
    LAYOUT="folders <sequence>/ with img/ (image files), anno/<sequence>.txt beside or groundtruth_rect.txt in them",
    ATTRIBUTES=("DEF", "OCC", "DIS", "BC", "OV", "SV", "FM", "MB", "TC", "IV", "LR", "ARV", "VM", "DM", "SU", "HH"),
    ANNOS="anno")
