"""FAB (Croce and Hein, 2020): looks for the smallest perturbation by projections on the linearised boundary; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pyautoattack.fab_pt import FABAttack_PT

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


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
    """One run for each epsilon: the library stops looking at an image as soon as it has anything within epsilon."""
    images = problem.images

    def make(epsilon: float, seed: int) -> FABAttack_PT:
        return FABAttack_PT(
            problem.model,
            "Linf",
            settings.restarts,
            settings.steps,
            epsilon,
            targeted=settings.targets > 0,
            seed=seed,
            device=images.device,
            n_target_classes=min(settings.targets, problem.n_classes - 1),
        )

    found = fixed_epsilon(make, problem, epsilons)
    sizes = torch.stack([(proposed - images).flatten(1).abs().amax(1) for proposed in found.images])
    smallest = torch.where(sizes > 0, sizes, float("inf")).amin(0)
    wrong = problem.logits.argmax(1) != problem.labels
    return replace(found, distance=torch.where(wrong, 0.0, smallest).cpu())


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose, loss=None)
