"""PGD as the PEPITA paper's code runs it: on the squared error of probabilities, in small steps, and clipped at -1 instead of 0, so that
pixels fall below black by up to epsilon. Its images are none that a camera could take; it is here to regenerate the paper's numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.data.labels import squared_error


@dataclass(frozen=True)
class Settings:
    """Steps, and step size in units of epsilon; the defaults are advertorch's, at the code's epsilon of 0.1."""

    steps: int = 40
    relative_step: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.relative_step > 0:
            raise ValueError("steps must be at least 1, relative_step positive")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends sum_c (p_c - y_c)^2 from a random start."""

    def proposal(epsilon: float) -> Tensor:
        return ascend(
            problem,
            epsilon,
            steps=settings.steps,
            step=settings.relative_step * epsilon,
            random_start=True,
            lowest=-1.0,
        )

    return Candidates([proposal(epsilon) for epsilon in epsilons], lowest=-1.0)


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose, loss=squared_error)
