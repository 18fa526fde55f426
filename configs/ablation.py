"""The paper's claims one by one: a small network without the parts, each part added, then the distiller and its rivals.

  scripts/ablation.py --config configs/ablation.py --workdir runs/ablation \
      --config.experiment.data.train.clips.root=DATA/svanstrom_ir/train \
      --config.experiment.teacher.checkpoint=runs/teacher --data val=antiuav:DATA/svanstrom_ir/val

Results and how to read them: docs/ablation.md.
"""

import ml_collections

from configs import svanstrom


def get_config() -> ml_collections.ConfigDict:
  """`experiment`: what all variants share, the student of configs/svanstrom.py without the paper's parts, undistilled.

  `variants`: each adds `changes` to the variant named by `of`, which it is compared with.

  `trainings`: of every variant, with seeds from `experiment.seed` on. From 2 on differences have an interval over them;
  a larger number goes on with what is there.
  """
  experiment = svanstrom.get_config("student")
  experiment.model.update(use_sten=False, use_intensity=False, use_dsfam=False, use_dcfam=False)
  experiment.distiller.kind = "none"
  experiment.train.update(steps=600, checkpoint_every=200)
  added = [
      dict(name="baseline", of="", changes=dict()),
      dict(name="sten", of="baseline", changes=dict(model=dict(use_sten=True, use_intensity=True))),
      dict(name="dsfam", of="sten", changes=dict(model=dict(use_dsfam=True))),
      dict(name="dcfam", of="dsfam", changes=dict(model=dict(use_dcfam=True))),
  ]
  # The rivals' published weights are for other tasks; distiller=dict(kind=..., weight=...) sets another one.
  distilled = [dict(name=kind, of="dcfam", changes=dict(distiller=dict(kind=kind)))
               for kind in ("contextual", "fgd", "at", "cwd")]
  return ml_collections.ConfigDict(dict(experiment=experiment, variants=added + distilled, trainings=1))
