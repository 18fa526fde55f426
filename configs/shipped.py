"""The shipped models: small SiamDFFs for tiny targets, on real clips, simulated and semi-real sequences.

  SIZES=320x256,320x256,640x512,640x512,640x480,1280x1024
  scripts/simulate.py --out=runs/simulated --sequences=1700 --frames=40 --seed=100 --workers=16 --sizes=$SIZES
  scripts/simulate.py --out=runs/semireal --sequences=1700 --frames=40 --seed=300 --workers=16 --sizes=$SIZES \
      --backgrounds=antiuav:DATA/svanstrom_ir/train
  DATA_FLAGS="--config.data.train.clips.root=DATA/svanstrom_ir/train --config.data.train.simulated.root=runs/simulated
              --config.data.train.semireal.root=runs/semireal"
  ON_GPU="--config.data.feed=device --config.layout.kind=mesh --config.model.dtype=bfloat16"
  scripts/train.py --config configs/shipped.py:r18 --workdir runs/r18 $DATA_FLAGS $ON_GPU
  scripts/train.py --config configs/shipped.py:lite --workdir runs/lite $DATA_FLAGS $ON_GPU \
      --config.teacher.checkpoint=runs/r18

How far the shipped weights went, on which machine, and what they score: siamdff_jax/pretrained/README.md.
"""

import ml_collections

from configs import base

# (blocks per stage, channels per stage, features, steps)
_NETWORKS = {
    "r18": ((2, 2, 2, 2), (32, 64, 96, 128), 128, 36_500),
    "lite": ((1, 1, 1, 1), (16, 32, 48, 64), 64, 14_000),
}


def get_config(role: str = "lite") -> ml_collections.ConfigDict:
  """`role`: "r18", the teacher, or "lite"."""
  base.require_variant(role, _NETWORKS)
  blocks, widths, features, steps = _NETWORKS[role]
  config = base.get_config()
  config.model.update(template_side=63, search_side=127, features=features, heads=4, tower_depth=2, norm="group",
                      mean=0.4, std=0.2, correlation_padding=2)
  config.model.backbone.update(blocks=blocks, widths=widths, stem_kernel=3)
  config.distiller.kind = "none" if role == "r18" else "contextual"
  config.data.train.clips = dict(format="antiuav", root="", weight=1.0)
  config.data.train.simulated = dict(format="antiuav410", root="", weight=1.0)
  config.data.train.semireal = dict(format="antiuav410", root="", weight=1.0)  # Simulated targets, real backgrounds.
  config.data.pairs.update(max_gap=150, shift=1.6, scale=0.8, style=0.4, jitter=0.08, negative=0.3, lookalike=0.4,
                           impostor=0.1)
  config.data.augment.update(polarity=0.3, crossover=0.2, tone=0.4, halo=0.3, fade=0.25, gain=0.5, blur=0.25,
                             noise=0.35, stripes=0.2)
  config.optimizer.learning_rate = 2e-3
  config.train.update(steps=steps, batch_size=256, checkpoint_every=2000)
  return config
