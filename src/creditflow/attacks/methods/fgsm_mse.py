"""FGSM on the squared error of probabilities, clipped at -1 instead of 0: as the PEPITA paper's code runs it.

That code computes in float64 (`precision`). In float32 the gradient of this loss becomes exactly zero sooner: see
`pgd_mse_code.py`.
"""

from collections.abc import Sequence

from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.attacks.methods.settings.fgsm_mse import Settings
from creditflow.attacks.precision import in_precision
from creditflow.data.labels import squared_error


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Takes one step of epsilon that ascends sum_c (p_c - y_c)^2."""
    with in_precision(problem, settings) as seen:

        def proposal(epsilon: float) -> Tensor:
            proposed = ascend(seen, epsilon, steps=1, step=epsilon, random_start=False, lowest=-1.0)
            return proposed.to(problem.images.dtype)

        return Candidates([proposal(epsilon) for epsilon in epsilons], lowest=-1.0)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=squared_error, differentiated=in_precision)
