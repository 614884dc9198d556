"""Runs foolbox's attacks on a Problem."""

from collections.abc import Sequence

import eagerpy as ep
import foolbox
import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Candidates, Pool, Problem


def wrap(model: nn.Module, images: Tensor) -> foolbox.PyTorchModel:
    """Returns foolbox's view of a model on images in [0, 1]; the device is given, as foolbox would choose its own."""
    return foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)


def fixed_epsilon(attack: foolbox.attacks.base.FixedEpsilonAttack, problem: Problem, epsilons: Sequence[float]) -> Candidates:
    """Runs an attack that spends a given epsilon: one run per epsilon, judged by our judge only.

    foolbox's own call would ask the model once more at every epsilon whether the attack succeeded.
    """
    fmodel, images = wrap(problem.model, problem.images), ep.astensor(problem.images)
    criterion = foolbox.criteria.Misclassification(ep.astensor(problem.labels))

    def proposal(epsilon: float) -> Tensor:
        if epsilon == 0 and not getattr(attack, "random_start", True):
            return problem.images
        found = attack.run(fmodel, images, criterion, epsilon=epsilon)
        clipped: Tensor = attack.distance.clip_perturbation(images, found, epsilon).raw
        return clipped

    return Candidates([proposal(epsilon) for epsilon in epsilons])


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


def starting_points(problem: Problem, pool: Pool, n_noise: int = 64) -> tuple[Tensor, Tensor]:
    """Returns for each image a starting point that the model gives another label, and where there is one.

    It is the nearest such image (L2) of the pool, else the nearest such of `n_noise` images of uniform noise. Noise alone,
    foolbox's default, is one class to most models: images of that class would have no start.
    """
    nearest, found = _nearest(problem, pool.images, pool.predictions)
    if not bool(found.all()):
        noise = torch.rand((n_noise, *problem.images.shape[1:]), device=problem.images.device)
        with torch.no_grad():
            predictions = problem.model(noise).argmax(1)
        fallback, works = _nearest(problem, noise, predictions)
        nearest[~found] = fallback[~found]
        found = found | works
    return nearest, found


def _nearest(problem: Problem, images: Tensor, predictions: Tensor) -> tuple[Tensor, Tensor]:
    distances = torch.cdist(problem.images.flatten(1), images.flatten(1))
    distances[problem.labels[:, None] == predictions[None, :]] = float("inf")
    nearest = distances.min(dim=1)
    return images[nearest.indices], nearest.values.isfinite()
