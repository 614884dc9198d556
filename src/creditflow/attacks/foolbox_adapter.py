"""Runs foolbox's attacks on a Problem."""

from collections.abc import Sequence

import foolbox
import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Candidates, Pool, Problem


def wrap(model: nn.Module, images: Tensor) -> foolbox.PyTorchModel:
    """Returns foolbox's view of a model on images in [0, 1]; the device is given, as foolbox would choose its own."""
    return foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)


def fixed_epsilon(attack: foolbox.attacks.base.Attack, problem: Problem, epsilons: Sequence[float]) -> Candidates:
    """Runs an attack that spends a given epsilon: one run per epsilon."""
    _, clipped, _ = attack(wrap(problem.model, problem.images), problem.images, problem.labels, epsilons=list(epsilons))
    return Candidates(clipped)


def smallest_l2(attack: foolbox.attacks.base.MinimizationAttack, problem: Problem, epsilons: Sequence[float]) -> Candidates:
    """Runs an attack that looks for the smallest L2 perturbation, from starting points of other images.

    For each epsilon foolbox shortens the perturbation that it found to that length; whether the shortened one still
    fools the model is for the judge to see.
    """
    assert problem.pool is not None
    starts, can_start = starting_points(problem, problem.pool)
    images, labels = problem.images[can_start], problem.labels[can_start]
    proposed = [problem.images.clone() for _ in epsilons]
    distance = torch.full((len(problem.images),), float("inf"))
    if len(images) > 0:
        raw, clipped, _ = attack(wrap(problem.model, images), images, labels, epsilons=list(epsilons), starting_points=starts[can_start])
        for target, found in zip(proposed, clipped, strict=True):
            target[can_start] = found
        distance[can_start.cpu()] = (raw[0] - images).flatten(1).norm(dim=1).cpu()
    return Candidates(proposed, distance, failed=int((~can_start).sum()))


def starting_points(problem: Problem, pool: Pool) -> tuple[Tensor, Tensor]:
    """Returns for each image the nearest pool image (L2) that the model gives another label, and where there is one.

    Uniform noise, foolbox's default start, is one class to most models: images of that class would have no start.
    """
    distances = torch.cdist(problem.images.flatten(1), pool.images.flatten(1))
    distances[problem.labels[:, None] == pool.predictions[None, :]] = float("inf")
    nearest = distances.min(dim=1)
    return pool.images[nearest.indices], nearest.values.isfinite()
