"""PGD on a gradient that is averaged over random points around each iterate; L-infinity.

A gradient can be exact and yet say nothing of its surroundings: ripples of the outputs may hide their slope, and a
model that clips dark pixels has none there. The mean gradient over a neighbourhood is the gradient of the mean loss
over it, which such details do not change.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.losses import scaled_cross_entropies
from creditflow.attacks.methods.settings.pgd_smoothed import Settings
from creditflow.data.labels import is_correct


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label, of logits at a fixed scale; the first success at each epsilon."""
    return Candidates([_at(problem, epsilon, settings) for epsilon in epsilons])


def _at(problem: Problem, epsilon: float, settings: Settings) -> Tensor:
    images = problem.images
    if epsilon == 0:
        return images
    problem.begin()
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    proposed = images.clone()
    standing = torch.arange(len(images), device=images.device)
    for _ in range(settings.steps):
        part, current = problem.part(standing), proposed[standing]
        gradient = _smoothed_gradient(part, current, settings.relative_radius * epsilon, settings.points)
        moved = current + settings.relative_step * epsilon * gradient.sign()
        proposed[standing] = moved.maximum(low[standing]).minimum(high[standing])
        with torch.no_grad():
            standing = standing[is_correct(problem.model(proposed[standing]), part.labels)]
        if not len(standing):
            break
    return proposed


def _smoothed_gradient(problem: Problem, images: Tensor, radius: float, points: int) -> Tensor:
    """Returns the mean gradient (N, C, H, W) at random points around images; what would leave [0, 1] is reflected."""
    total = torch.zeros_like(images)
    for _ in range(points):
        around = images + radius * (2 * torch.rand_like(images) - 1)
        total += problem.gradient_at(1 - (1 - around.abs()).abs())
    return total / points


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=scaled_cross_entropies, scale_free=True)
