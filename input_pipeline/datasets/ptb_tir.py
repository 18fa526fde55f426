"""PTB-TIR: `<sequence>/img/*.jpg` + labels in `tiranno/` or in the sequence's folder.

The toolkit (QiaoLiuHit/PTB-TIR_Evaluation_toolkit) keeps the sequences in `tirsequences/`, the boxes in
`tiranno/<sequence>.txt` (corrected in 2019), and 10 attributes in `tiranno/att/<sequence>.txt`, in the order of its
`run_evaluation.m`. It is OTB's Matlab code: the top left pixel is (1, 1). The root is the folder of the sequences;
without frames, `tiranno` is enough.
"""

from input_pipeline.datasets.otb_family import OtbFamily

READER = OtbFamily(
    LAYOUT="folders <sequence>/ with img/ (image files), tiranno/<sequence>.txt beside or groundtruth_rect.txt in them",
    ATTRIBUTES=("DEF", "OCC", "SV", "BC", "LR", "FM", "MB", "OV", "IV", "TC"),
    ANNOS="tiranno")
