"""PGD (Madry et al., 2018): projected sign-gradient steps in the L-infinity ball."""

from collections.abc import Sequence
from dataclasses import dataclass

import foolbox

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import TargetsLoss, fixed_epsilon


@dataclass(frozen=True)
class Settings:
    """Steps, step size in units of epsilon, and whether to begin at a random point of the ball.

    The defaults are the sign-symmetry paper's: 5 steps of epsilon / 3 from the image itself.
    """

    steps: int = 5
    relative_step: float = 1 / 3
    random_start: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if not self.relative_step > 0:
            raise ValueError(f"relative_step must be positive, not {self.relative_step}")


class _LinfPGD(TargetsLoss, foolbox.attacks.LinfPGD):
    """foolbox's attack with our loss."""


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label."""
    attack = _LinfPGD(steps=settings.steps, rel_stepsize=settings.relative_step, random_start=settings.random_start)
    return fixed_epsilon(attack, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose, multi_label=True)
