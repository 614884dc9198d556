"""PGD on the squared error of probabilities, the loss that the PEPITA paper trains and attacks with.

The gradient of this loss vanishes where the softmax saturates: of an image of logit gap g it is about exp(-2 g), exactly 0 in
float32 beyond 50 to 80, where cross-entropy of the logits still has one. Then the attack does nothing, which looks like robustness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd
from creditflow.attacks.methods._ascent import ascend
from creditflow.data.labels import squared_error


@dataclass(frozen=True)
class Settings(pgd.Settings):
    """PGD's own. The defaults are the PEPITA paper's (steps of 0.1 at an epsilon of 0.3), with its code's 40 steps and random start."""

    steps: int = 40
    relative_step: float = 1 / 3
    random_start: bool = True


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends sum_c (p_c - y_c)^2."""

    def proposal(epsilon: float) -> Tensor:
        step = settings.relative_step * epsilon
        return ascend(problem, epsilon, steps=settings.steps, step=step, random_start=settings.random_start, lowest=0.0)

    return Candidates([proposal(epsilon) for epsilon in epsilons])


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose, loss=squared_error)
