"""What scripts/evaluate.py does, in this process."""

from siamdff_jax.evaluation import evaluate, trackers
from siamdff_jax.evaluation.usable import Usable


def run(checkpoints, baselines, format, root, out, *, run="ope", only="", redo=False, clips=0, videos=0):
  """Tracks, scores and shows, and prints the tables; arguments as of the flags."""
  work = evaluate.Evaluation(trackers.named(checkpoints, baselines), Usable(format, root, only), out, run)
  evaluate.track(work, redo=redo)
  print(evaluate.conclude(work, clips=clips, videos=videos))
  work.usable.finish()
