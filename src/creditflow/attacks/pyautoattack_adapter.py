"""Runs pyautoattack's attacks, at one epsilon at a time, on a Problem."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from creditflow.attacks.attack import Candidates, Problem
from creditflow.core.errors import UserError


class _Perturbs(Protocol):
    def perturb(self, x: Tensor, y: Tensor) -> Tensor: ...


def fixed_epsilon(make: Callable[[float, int], _Perturbs], problem: Problem, epsilons: Sequence[float]) -> Candidates:
    """Runs `make(epsilon, seed)` at each epsilon; an image that stays correct is proposed unchanged, as the library returns it."""

    def proposal(epsilon: float) -> Tensor:
        seed = int(torch.randint(2**31, ()))  # the library seeds torch's global generator itself
        if epsilon == 0:
            return problem.images
        found = make(epsilon, seed).perturb(problem.images, problem.labels).detach()
        # Its projections round; ours must keep the promise that the judge checks.
        return found.clamp(problem.images - epsilon, problem.images + epsilon).clamp(0, 1)

    return Candidates([proposal(epsilon) for epsilon in epsilons])


def need_classes(problem: Problem, least: int, attack: str) -> None:
    """Raises UserError if the task has fewer classes than a loss is defined for."""
    if problem.n_classes < least:
        raise UserError(
            f"attack {attack} needs at least {least} classes, the model has {problem.n_classes}; use apgd_ce"
        )
