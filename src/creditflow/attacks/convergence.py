"""Whether an attack has converged: twice its steps, at the images that still stand, must not lower the accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from creditflow.attacks.attack import Attack, Problem
from creditflow.data.labels import is_correct


def falls_later(
    attack: Attack, settings: Any, problem: Problem, epsilons: Sequence[float], correct: Tensor
) -> Tensor | None:
    """Returns bool (K, N): whether an image that stands, in `correct` bool (K, N), falls to twice the steps.

    None if the settings name no stage with steps.
    """
    twice = settings.doubled()
    if twice is None:
        return None
    falls = torch.zeros_like(correct)
    for row, epsilon in enumerate(epsilons):
        standing = correct[row].nonzero()[:, 0].to(problem.images.device)
        if epsilon > 0 and len(standing):
            part = problem.part(standing)
            images = attack.propose(part, [epsilon], twice).images[0]
            with torch.no_grad():
                fooled = ~is_correct(problem.model(images), part.labels)
            falls[row, standing.to(falls.device)] = fooled.to(falls.device)
    return falls
