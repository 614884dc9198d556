"""PGD as the PEPITA paper's code runs it: on the squared error of probabilities, in small steps, and clipped at -1.

As it does not clip at 0, pixels fall below black by up to epsilon. No camera could take such images. The attack is here
to regenerate the paper's numbers. The paper's code computes in float64 (`precision`), where the gradient of this loss
becomes exactly zero at a larger gap between the logits than in float32: at 373 instead of 52.
"""

from collections.abc import Sequence

from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.attacks.methods.settings.pgd_mse_code import Settings
from creditflow.attacks.precision import in_precision
from creditflow.data.labels import squared_error


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends sum_c (p_c - y_c)^2 from a random start."""
    with in_precision(problem, settings) as seen:

        def proposal(epsilon: float) -> Tensor:
            return ascend(
                seen,
                epsilon,
                steps=settings.steps,
                step=settings.relative_step * epsilon,
                random_start=True,
                lowest=-1.0,
            ).to(problem.images.dtype)

        return Candidates([proposal(epsilon) for epsilon in epsilons], lowest=-1.0)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=squared_error, differentiated=in_precision)
