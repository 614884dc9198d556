"""FGSM on the squared error of probabilities, clipped at -1 instead of 0: as the PEPITA paper's code runs it."""

from collections.abc import Sequence

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.core.settings import NoSettings
from creditflow.data.labels import squared_error


def propose(problem: Problem, epsilons: Sequence[float], settings: NoSettings) -> Candidates:
    """Takes one step of epsilon that ascends sum_c (p_c - y_c)^2."""
    proposed = [
        ascend(problem, epsilon, steps=1, step=epsilon, random_start=False, lowest=-1.0) for epsilon in epsilons
    ]
    return Candidates(proposed, lowest=-1.0)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=squared_error)
