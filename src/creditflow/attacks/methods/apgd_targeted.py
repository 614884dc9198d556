"""APGD on the targeted difference of logits ratio (Croce and Hein, 2020), one target class after the other; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyautoattack.autopgd_base import APGDAttack_targeted

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon, need_classes


@dataclass(frozen=True)
class Settings:
    """Steps per target, restarts, and how many of the likeliest other classes are targets; AutoAttack's own are 100, 1, 9."""

    steps: int = 100
    restarts: int = 1
    targets: int = 9

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts, self.targets) < 1:
            raise ValueError("steps, restarts and targets must be at least 1")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2). Raises UserError with fewer than four classes."""
    need_classes(problem, 4, "apgd_targeted")
    targets = min(settings.targets, problem.n_classes - 1)

    def make(epsilon: float, seed: int) -> APGDAttack_targeted:
        return APGDAttack_targeted(
            problem.model,
            settings.steps,
            "Linf",
            settings.restarts,
            epsilon,
            seed,
            n_target_classes=targets,
            device=problem.images.device,
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose, loss=None)
