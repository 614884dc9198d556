"""PGD on the expected Hamming similarity with the clean code: our reference, against which a flat curve shows a weak attack.

Bit k of a random code is 1 with probability (1 + tanh(f_k / s)) / 2, so that sum_k tanh(f_k / s) o_k is the expected similarity with the
clean code o. s is the image's own mean |f|: outputs of any size leave the tanh its slope. Projected sign steps descend it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project


@dataclass(frozen=True)
class Settings:
    """Number of steps, their size in units of epsilon, and whether to begin at a random point of the ball."""

    iterations: int = 40
    relative_step: float = 0.1
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.relative_step > 0:
            raise ValueError("iterations must be at least 1, and relative_step positive")


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the similarity."""
    scale = problem.outputs.abs().mean(1, keepdim=True).clamp(min=1e-12)

    def similarity(outputs: Tensor, _: Tensor) -> Tensor:
        return (torch.tanh(outputs / scale) * problem.codes).sum(1)

    x = problem.images
    if settings.random_start:
        x = project(x + epsilon * problem.noise, problem.images, epsilon)
    for _ in range(settings.iterations):
        x = project(
            x - settings.relative_step * epsilon * problem.gradient_of(similarity, x).sign(), problem.images, epsilon
        )
    return x


ATTACK = HashAttack(norm="linf", uses_gradient=True, settings=Settings, propose=propose)
