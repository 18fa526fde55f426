"""The smallest SiamDFF that tracks: simulated sequences, minutes on two CPU cores. `scripts/quickstart.sh` runs it.

  scripts/train.py --config configs/quickstart.py:teacher --workdir runs/quickstart/teacher \
      --config.data.train.simulated.root=runs/quickstart/train
  scripts/train.py --config configs/quickstart.py --workdir runs/quickstart/student \
      --config.data.train.simulated.root=runs/quickstart/train \
      --config.teacher.checkpoint=runs/quickstart/teacher

Expected: the table in README.md.
"""

import ml_collections

from configs import svanstrom


def get_config(role: str = "student") -> ml_collections.ConfigDict:
  """`role`: "teacher" or "student"; the networks are those of configs/svanstrom.py."""
  config = svanstrom.get_config(role)
  config.data.train = dict(simulated=dict(format="antiuav410", root="", weight=1.0))
  config.data.pairs.update(max_gap=30, shift=1.6, scale=0.5)
  config.model.correlation_padding = 2
  config.distiller.weight = 0.3  # In so few steps the full weight holds the student's own task up.
  config.optimizer.warmup_steps = 50
  config.train.update(steps=200, batch_size=24, checkpoint_every=100, ema_decay=0.98)
  return config
