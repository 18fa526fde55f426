"""SiamDFF with an inverted-residual backbone: the student for real-time use on a CPU, at most 1.5 GFLOP per search.

  scripts/train.py --config configs/siamdff_lite.py --workdir runs/lite \
      --config.data.train.antiuav410.root=Anti-UAV410/train --config.teacher.checkpoint=runs/r50

Not yet run to its end: no result is claimed.
"""

import ml_collections

from configs import siamdff_r18


def get_config() -> ml_collections.ConfigDict:
  config = siamdff_r18.get_config()
  config.model.backbone = ml_collections.ConfigDict(dict(
      kind="lite", stages=((1, 16, 1), (2, 24, 4), (3, 48, 4), (2, 80, 4))))  # (blocks, features, expansion)
  config.model.update(features=96, heads=4, tower_depth=3)
  return config
