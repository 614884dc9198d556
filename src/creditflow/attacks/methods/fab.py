"""FAB (Croce and Hein, 2020): smallest perturbations, by projections on the linearised boundary; L-infinity."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pyautoattack.fab_pt import FABAttack_PT

from creditflow.attacks.attack import Attack, Candidates, Problem, perturbation_size
from creditflow.attacks.methods.settings.fab import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Runs once for each epsilon, as the library stops to search for an image once it has anything within epsilon."""
    return propose_in("linf", problem, epsilons, settings)


def propose_in(
    norm: Literal["linf", "l2"], problem: Problem, epsilons: Sequence[float], settings: Settings
) -> Candidates:
    """Searches for perturbations that are small in a norm."""
    images = problem.images

    def make(epsilon: float, seed: int) -> FABAttack_PT:
        return FABAttack_PT(
            problem.model,
            norm.capitalize(),
            settings.restarts,
            settings.steps,
            epsilon,
            targeted=settings.targets > 0,
            seed=seed,
            device=images.device,
            n_target_classes=min(settings.targets, problem.n_classes - 1),
        )

    candidates = fixed_epsilon(make, problem, epsilons, norm)
    sizes = torch.stack([perturbation_size(proposed - images, norm) for proposed in candidates.images])
    smallest = torch.where(sizes > 0, sizes, float("inf")).amin(0)
    wrong = problem.logits.argmax(1) != problem.labels
    return replace(candidates, distance=torch.where(wrong, 0.0, smallest).cpu())


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=None)
