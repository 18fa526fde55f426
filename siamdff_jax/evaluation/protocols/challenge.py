"""The Anti-UAV challenge: its accuracy, which punishes a wrong "absent", as the main number.

Official: `challenge_accuracy` (formula in `metrics.challenge_accuracy`), the mean over sequences. It can be
negative. All else is as in `antiuav`.
"""

from siamdff_jax.evaluation.protocols import antiuav, base

PROTOCOL = base.Protocol("challenge", ("challenge_accuracy",), antiuav.score_sequence)
