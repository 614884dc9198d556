"""PGD on the expected Hamming similarity with the clean code.

It is our reference: where it succeeds and another attack's curve is flat, the other attack is weak.

Let bit k of a random code be 1 with probability (1 + tanh(f_k / s)) / 2. Then sum_k tanh(f_k / s) o_k is the expected
similarity with the clean code o, which projected sign steps descend. The scale s is the image's mean |f|, so that the
tanh keeps its slope whatever the size of the outputs.
"""

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project
from creditflow.attacks.hashing.settings.hamming_pgd import Settings


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the expected similarity."""
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


ATTACK = HashAttack(norm="linf", uses_gradient=True, propose=propose)
