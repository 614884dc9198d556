"""Sign-gradient ascent of a problem's loss, within the epsilon ball and the range of pixels."""

import torch
from torch import Tensor

from creditflow.attacks.attack import Problem


def ascend(problem: Problem, epsilon: float, *, steps: int, step: float, random_start: bool, lowest: float) -> Tensor:
    """Returns x_n, with x_{i+1} = clip(x_i + step sign(dL/dx)), at most epsilon from the image and within [lowest, 1].

    Where the gradient is exactly zero, its sign is zero, too: such an image stays where the attack began.
    """
    problem.begin()
    images = problem.images
    low, high = (images - epsilon).clamp(min=lowest), (images + epsilon).clamp(max=1)
    current = images
    if random_start:
        current = (images + (2 * torch.rand_like(images) - 1) * epsilon).maximum(low).minimum(high)
    for _ in range(steps):
        current = (current + step * problem.gradient_at(current).sign()).maximum(low).minimum(high)
    return current
