"""What the best checkpoint is chosen by."""

from collections.abc import Callable

from siamdff_jax.training.evaluation import Evaluation
from siamdff_jax.training.logging import RunLog
from siamdff_jax.training.state import TrainState


class Quality:
  """Measures a state: the score of tracking, else the IoU on validation pairs, else nothing; all of it is logged.

  Args:
    validate: of `validation.validation`.
    evaluate: None where no sequences are tracked.
    run_log: gets the numbers.
  """

  def __init__(self, validate: Callable[[TrainState], dict[str, float] | None], evaluate: Evaluation | None,
               run_log: RunLog):
    self._validate, self._evaluate, self._run_log = validate, evaluate, run_log

  def __call__(self, state: TrainState, step: int) -> float | None:
    """The higher the better; None where there is nothing to measure it on."""
    scalars = {f"validation/{name}": value for name, value in (self._validate(state) or {}).items()}
    if self._evaluate:
      scalars["evaluation/score"] = self._evaluate(state)
    if scalars:
      self._run_log.write(step, scalars)
    return scalars.get("evaluation/score", scalars.get("validation/iou"))
