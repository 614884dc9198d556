"""FAB (Croce and Hein, 2020): looks for the smallest perturbation by projections on the linearised boundary; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyautoattack.fab_pt import FABAttack_PT

from creditflow.attacks.attack import Attack, Candidates, Problem


@dataclass(frozen=True)
class Settings:
    """Iterations, restarts, and whether each of the `targets` likeliest other classes is aimed at by itself.

    AutoAttack's own are 100 iterations, 1 restart, and 9 targets. Without targets each step costs a gradient per class.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1 or self.targets < 0:
            raise ValueError("steps and restarts must be at least 1, targets at least 0")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """One run for all epsilons: what it found is shortened to each, and the judge sees whether that still fools the model."""
    images, largest = problem.images, max(epsilons)
    attack = FABAttack_PT(
        problem.model, "Linf", settings.restarts, settings.steps, largest, targeted=settings.targets > 0,
        seed=int(torch.randint(2**31, ())), device=images.device, n_target_classes=min(settings.targets, problem.n_classes - 1),
    )  # fmt: skip
    delta = (attack.perturb(images, problem.labels) - images).detach() if largest > 0 else torch.zeros_like(images)
    distance = delta.flatten(1).abs().amax(1)
    return Candidates([(images + delta.clamp(-epsilon, epsilon)).clamp(0, 1) for epsilon in epsilons], _smallest(problem, distance))


@torch.no_grad()
def _smallest(problem: Problem, distance: torch.Tensor) -> torch.Tensor:
    """An unchanged image is at distance 0 if it was wrong from the start, and else was not moved across the boundary."""
    wrong = problem.model(problem.images).argmax(1) != problem.labels
    return torch.where(wrong, torch.zeros_like(distance), torch.where(distance > 0, distance, float("inf"))).cpu()


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose)
