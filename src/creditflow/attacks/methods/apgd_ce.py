"""APGD on the cross-entropy (Croce and Hein, 2020): PGD with momentum and a step size that adapts itself; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyautoattack.autopgd_base import APGDAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


@dataclass(frozen=True)
class Settings:
    """Steps, and restarts from random points of the ball; AutoAttack's own are 100 and 1."""

    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1:
            raise ValueError("steps and restarts must be at least 1")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label."""

    def make(epsilon: float, seed: int) -> APGDAttack:
        return APGDAttack(
            problem.model, settings.steps, "Linf", settings.restarts, epsilon, seed, "ce", device=problem.images.device
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose)
