"""Boundary Attack (Brendel et al., 2018): a random walk along the decision boundary, towards the image; L2."""

from collections.abc import Sequence
from dataclasses import dataclass

import foolbox

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest_l2


@dataclass(frozen=True)
class Settings:
    """steps: of the walk, about one query each; foolbox's default is 25,000."""

    steps: int = 25000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs only the model's decisions."""
    return smallest_l2(foolbox.attacks.BoundaryAttack(steps=settings.steps), problem, epsilons)


ATTACK = Attack(norm="l2", uses_gradient=False, settings=Settings, propose=propose)
