"""SiamDFF with an atrous ResNet-18: the student on an accelerator.

  scripts/train.py --config configs/siamdff_r18.py --workdir runs/r18 \
      --config.data.train.antiuav410.root=Anti-UAV410/train --config.teacher.checkpoint=runs/r50

Not yet run to its end: no result is claimed.
"""

import ml_collections

from configs import siamdff_r50


def get_config() -> ml_collections.ConfigDict:
  config = siamdff_r50.get_config()
  config.model.backbone.update(blocks=(2, 2, 2, 2), bottleneck=False, remat=False)
  config.distiller.kind = "contextual"
  return config
