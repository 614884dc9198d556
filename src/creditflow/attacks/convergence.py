"""Whether an attack has converged: twice its steps, at the images that still stand, must not lower the accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from creditflow.attacks.attack import Attack, Problem
from creditflow.data.labels import is_correct


def falls_later(
    attack: Attack, settings: Any, problem: Problem, epsilons: Sequence[float], correct: Tensor, most: int
) -> Tensor | None:
    """Returns float64 (K, N): 1 where an image that stands, in `correct` bool (K, N), falls to twice the steps, else 0.

    At each epsilon at most `most` of the images that stand are attacked. Where there are more, a fall counts for as
    many images as this sample stands for, so that the mean (K,) estimates how far the accuracy falls. None if the
    settings name no stage with steps.
    """
    twice = settings.doubled()
    if twice is None:
        return None
    falls = torch.zeros(correct.shape, dtype=torch.float64)
    for row, epsilon in enumerate(epsilons):
        standing = correct[row].nonzero()[:, 0]
        if epsilon > 0 and len(standing):
            checked = _spread(standing, most)
            part = problem.part(checked.to(problem.images.device))
            images = attack.propose(part, [epsilon], twice).images[0]
            with torch.no_grad():
                fooled = ~is_correct(problem.model(images), part.labels)
            falls[row, checked] = fooled.cpu().double() * (len(standing) / len(checked))
    return falls


def _spread(standing: Tensor, most: int) -> Tensor:
    """Returns at most so many of the images that stand, spread evenly over all of them."""
    if len(standing) <= most:
        return standing
    return standing[torch.linspace(0, len(standing) - 1, most).round().long()]


def fallen_shares(falls: Tensor) -> list[float]:
    """Returns by how much twice the steps lower the accuracy at each of K epsilons; `falls` is that of `falls_later`.

    A single image of a sample says little of the others, so that it counts for itself alone.
    """
    seen = falls > 0
    shares = torch.where(seen.sum(1) > 1, falls.mean(1), seen.double().mean(1))
    return [float(share) for share in shares]
