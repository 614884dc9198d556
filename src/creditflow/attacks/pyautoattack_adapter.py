"""Runs pyautoattack's attacks on a Problem, at one epsilon at a time."""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from creditflow.attacks.attack import Candidates, Problem, perturbation_size
from creditflow.core.errors import UserError


class _Perturbs(Protocol):
    """An attack of pyautoattack."""

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns perturbed images (N, C, H, W) for images x and labels y (N,)."""


class _Make(Protocol):
    """Sets an attack up."""

    def __call__(self, epsilon: float, seed: int, /) -> _Perturbs:
        """Returns the attack at one epsilon; it seeds torch's global generator itself."""


def fixed_epsilon(
    make: _Make, problem: Problem, epsilons: Sequence[float], norm: Literal["linf", "l2"] = "linf"
) -> Candidates:
    """Runs an attack at each epsilon; the library returns an image unchanged that stays correct."""

    def proposal(epsilon: float) -> Tensor:
        seed = int(torch.randint(2**31, ()))
        if epsilon == 0:
            return problem.images
        problem.begin()
        perturbed = make(epsilon, seed).perturb(problem.images, problem.labels).detach()
        # The library's projections round a little beyond epsilon, which the judge does not accept.
        if norm == "linf":
            return perturbed.clamp(problem.images - epsilon, problem.images + epsilon).clamp(0, 1)
        delta = perturbed - problem.images
        length = perturbation_size(delta, "l2").clamp_min(1e-12)
        shortened: Tensor = problem.images + delta * (epsilon / length).clamp_max(1)[:, None, None, None]
        return shortened

    return Candidates([proposal(epsilon) for epsilon in epsilons])


def need_classes(problem: Problem, least: int, attack: str) -> None:
    """Raises UserError if the task has fewer classes than a loss is defined for."""
    if problem.n_classes < least:
        raise UserError(
            f"attack {attack} needs at least {least} classes, the model has {problem.n_classes}; use apgd_ce"
        )
