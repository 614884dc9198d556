"""One-pixel attack (Su et al., 2019): differential evolution over a few pixels, by scores alone; L0.

Its epsilon is the number of pixels; their places and values are searched for.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import differential_evolution
from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods.settings.few_pixel import Settings
from creditflow.core.errors import UserError


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs scores and no gradient. Each image has a search of its own, which ends once it is misclassified."""
    for epsilon in epsilons:
        if epsilon != int(epsilon):
            raise UserError(f"attack few_pixel: epsilon is a number of pixels, not {epsilon}")
    proposed = [
        [_search(problem, index, int(pixels), settings) for index in range(len(problem.labels))] for pixels in epsilons
    ]
    return Candidates([torch.stack(images) for images in proposed])


def _search(problem: Problem, index: int, pixels: int, settings: Settings) -> Tensor:
    image, label = problem.images[index], int(problem.labels[index])
    if pixels == 0 or float(_margins(problem, image[None], label)[0]) < 0:
        return image
    channels, height, width = image.shape
    bounds = pixels * [(0, height), (0, width), *channels * [(0.0, 1.0)]]

    def objective(members: NDArray[np.float64]) -> NDArray[np.float64]:
        return _margins(problem, painted(image, members.T), label).double().cpu().numpy()

    result = differential_evolution(
        objective,
        bounds,
        maxiter=settings.generations,
        init=_population(settings.population, len(bounds)) * [high for _, high in bounds],
        vectorized=True,
        updating="deferred",
        polish=False,
        tol=0,
        mutation=0.5,
        recombination=1.0,
        rng=_seed(),
        callback=lambda intermediate_result: bool(intermediate_result.fun < 0),
    )
    return painted(image, result.x[None])[0]


def painted(image: Tensor, members: NDArray[np.float64]) -> Tensor:
    """Returns copies (P, C, H, W) of an image with k pixels set.

    Each of the members (P, k (2 + C)) holds k times a row, a column and C values.
    """
    channels, height, width = image.shape
    genes = torch.as_tensor(members, dtype=image.dtype, device=image.device).reshape(len(members), -1, 2 + channels)
    rows, columns = genes[..., 0].long().clamp(0, height - 1), genes[..., 1].long().clamp(0, width - 1)
    copies = image.repeat(len(members), 1, 1, 1)
    which = torch.arange(len(members), device=image.device)
    for pixel in range(genes.shape[1]):
        copies[which, :, rows[:, pixel], columns[:, pixel]] = genes[:, pixel, 2:].clamp(0, 1)
    return copies


def _population(members: int, genes: int) -> NDArray[np.float64]:
    return np.random.default_rng(_seed()).random((members, genes))


def _seed() -> int:
    return int(torch.randint(2**31, ()))


@torch.no_grad()
def _margins(problem: Problem, images: Tensor, label: int) -> Tensor:
    """Returns the label's logit minus the largest other one (N,); it is negative for a misclassified image."""
    logits = problem.model(images)
    others = logits.clone()
    others[:, label] = -torch.inf
    margins: Tensor = logits[:, label] - others.amax(1)
    return margins


ATTACK = Attack(norm="l0", uses_gradient=False, propose=propose)
