"""A small SiamDFF on real thermal-infrared clips (Svanstrom et al., CC0): runs on two CPU cores.

  scripts/train.py --config configs/svanstrom.py:teacher --workdir runs/svanstrom_teacher \
      --config.data.train.clips.root=DATA/svanstrom_ir/train
  scripts/train.py --config configs/svanstrom.py --workdir runs/svanstrom \
      --config.data.train.clips.root=DATA/svanstrom_ir/train --config.teacher.checkpoint=runs/svanstrom_teacher

Expected (51 minutes in all on two shared cores, 2026-11-22): the student at AUC 0.750, P@5 1.000 on the 12 drone
clips of the validation split, protocol `antiuav`. (Measured before the stream of pairs got its present generator; other
pairs are drawn now.)
"""

import ml_collections

from configs import base


def get_config(role: str = "student") -> ml_collections.ConfigDict:
  """`role`: "teacher" or "student"."""
  base.require_variant(role, ("teacher", "student"))
  config = base.get_config()
  config.model.update(template_side=63, search_side=127, heads=4, tower_depth=2, norm="group", mean=0.4, std=0.2)
  config.model.backbone.update(blocks=(1, 1, 1, 1), stem_kernel=3)
  if role == "teacher":
    config.model.features = 96
    config.model.backbone.widths = (24, 48, 72, 96)
  else:
    config.model.features = 64
    config.model.backbone.widths = (16, 32, 48, 64)
    config.distiller.kind = "contextual"
  config.data.train.clips = dict(format="antiuav", root="", weight=1.0)
  config.data.pairs.update(max_gap=100, shift=0.9)
  config.train.update(steps=900 if role == "teacher" else 1200, batch_size=32, checkpoint_every=250)
  return config
