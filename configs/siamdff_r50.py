"""SiamDFF with an atrous ResNet-50: the large teacher, for accelerators.

  scripts/train.py --config configs/siamdff_r50.py --workdir runs/r50 \
      --config.data.train.antiuav410.root=Anti-UAV410/train

After scripts/prepare_data.py, `.format=packed` and `--config.data.feed=device` keep all pixels on the accelerator.
The schedule follows SiamCAR's shape (20 epochs of 60,000 pairs, backbone frozen for the first half, then at a tenth of
the learning rate) with AdamW instead of SGD. Not yet run to its end: no result is claimed.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
  config = base.get_config()
  config.model.backbone.update(blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512), bottleneck=True, remat=True)
  config.model.dtype = "bfloat16"
  config.data.train.antiuav410 = dict(format="antiuav410", root="", weight=1.0)
  config.data.workers = 16
  config.optimizer.update(learning_rate=5e-4, warmup_steps=1000, backbone_factor=0.1)
  config.train.update(batch_size=128, steps=9400, checkpoint_every=500)
  return config
