"""Runs foolbox's attacks on a Problem."""

from collections.abc import Callable, Sequence
from typing import Any

import eagerpy as ep
import foolbox
import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Candidates, Pool, Problem
from creditflow.data.labels import cross_entropy, holds_for_all, is_correct


class LeavesItsLabels(foolbox.criteria.Misclassification):
    """foolbox's criterion for labels (N,), or zeros and ones (N, K): none of the image's labels is predicted."""

    def __call__(self, perturbed: Any, outputs: Any) -> Any:
        raw, restore = ep.astensor_(outputs)
        return restore(ep.astensor(~is_correct(raw.raw, self.labels.raw)))


class TargetsLoss:
    """A mixin for foolbox's gradient attacks: they ascend the loss that the model was trained with."""

    def get_loss_fn(self, model: foolbox.models.Model, labels: ep.Tensor) -> Callable[[ep.Tensor], ep.Tensor]:
        """Returns the function images -> cross-entropy, summed over the batch."""

        def loss(inputs: ep.Tensor) -> ep.Tensor:
            losses = ep.astensor(cross_entropy(model(inputs).raw, labels.raw, reduction="none"))
            # The second term has a gradient of zero. A model that ignores its input would have none at all.
            return losses.sum() + 0 * inputs.sum()

        return loss


def wrap(model: nn.Module, images: Tensor) -> foolbox.PyTorchModel:
    """Returns foolbox's view of a model on images in [0, 1]; it runs where the images are."""
    return foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)


def fixed_epsilon(
    attack: foolbox.attacks.base.FixedEpsilonAttack, problem: Problem, epsilons: Sequence[float]
) -> Candidates:
    """Runs an attack that spends a given epsilon, once per epsilon. Only our judge decides whether it succeeded.

    A call of the attack would ask the model once more at every epsilon whether it succeeded; `run` does not.
    """
    fmodel, images = wrap(problem.model, problem.images), ep.astensor(problem.images)
    criterion = LeavesItsLabels(problem.labels)

    def proposal(epsilon: float) -> Tensor:
        if epsilon == 0 and not getattr(attack, "random_start", True):
            return problem.images
        problem.begin()
        perturbed = attack.run(fmodel, images, criterion, epsilon=epsilon)
        clipped: Tensor = attack.distance.clip_perturbation(images, perturbed, epsilon).raw
        return clipped

    return Candidates([proposal(epsilon) for epsilon in epsilons])


def smallest(
    attack: foolbox.attacks.base.MinimizationAttack, problem: Problem, epsilons: Sequence[float]
) -> Candidates:
    """Runs an attack that looks for the smallest perturbation in its norm, once for all epsilons.

    For each epsilon foolbox shortens the perturbation that it found to that size. The judge decides whether the
    shortened one still fools the model.
    """
    images = ep.astensor(problem.images)
    criterion = LeavesItsLabels(problem.labels)
    # Without a bound the attack does not stop early.
    smallest_found = attack.run(wrap(problem.model, problem.images), images, criterion)
    # It ends at the boundary, where rounding decides what the model says. So it is made longer by a thousandth.
    raw = (images + (smallest_found - images) * 1.001).clip(0, 1)
    with torch.no_grad():
        right = is_correct(problem.model(raw.raw), problem.labels)
    distance = attack.distance(images, raw).raw.masked_fill(right, float("inf"))
    proposed = [attack.distance.clip_perturbation(images, raw, epsilon).raw.clamp(0, 1) for epsilon in epsilons]
    return Candidates(proposed, distance.cpu())


def smallest_l2(
    attack: foolbox.attacks.base.MinimizationAttack, problem: Problem, epsilons: Sequence[float]
) -> Candidates:
    """Runs an attack that looks for the smallest L2 perturbation and starts from other images.

    For each epsilon foolbox shortens the perturbation that it found to that length. The judge decides whether the
    shortened one still fools the model.
    """
    assert problem.pool is not None
    starts, can_start = starting_points(problem, problem.pool)
    images, labels = problem.images[can_start], problem.labels[can_start]
    proposed = [problem.images.clone() for _ in epsilons]
    distance = torch.full((len(problem.images),), float("inf"))
    if len(images) > 0:
        criterion = LeavesItsLabels(labels)
        raw, clipped, _ = attack(
            wrap(problem.model, images), images, criterion, epsilons=list(epsilons), starting_points=starts[can_start]
        )
        for proposal, perturbed in zip(proposed, clipped, strict=True):
            proposal[can_start] = perturbed
        distance[can_start.cpu()] = (raw[0] - images).flatten(1).norm(dim=1).cpu()
    return Candidates(proposed, distance, failed=int((~can_start).sum()))


def starting_points(problem: Problem, pool: Pool, n_noise: int = 64) -> tuple[Tensor, Tensor]:
    """Returns for each image a starting point with another label (N, C, H, W), and whether there is one (N,).

    It is the nearest such image (L2) of the pool, else the nearest such one of `n_noise` images of uniform noise.
    foolbox starts from noise alone. Most models give noise one class, so that images of this class would have no start.
    """
    nearest, exists = _nearest_of_pool(problem, pool)
    if not bool(exists.all()):
        noise = torch.rand((n_noise, *problem.images.shape[1:]), device=problem.images.device)
        with torch.no_grad():
            predictions = problem.model(noise).argmax(1)
        distances = _distances(problem, noise, predictions)
        fallback = distances.min(dim=1)
        nearest[~exists] = noise[fallback.indices][~exists]
        exists = exists | fallback.values.isfinite()
    return nearest, exists


def _nearest_of_pool(problem: Problem, pool: Pool) -> tuple[Tensor, Tensor]:
    # The pool is read in parts, because a test split of full-size images would not fit into memory as floats.
    best = torch.full((len(problem.images),), float("inf"), device=problem.images.device)
    nearest = problem.images.clone()
    everything = pool.data.in_order()
    for part, (images, _) in zip(everything, pool.data.batches(everything), strict=True):
        closest = _distances(problem, images, pool.predictions[part.to(pool.predictions.device)]).min(dim=1)
        better = closest.values < best
        best = torch.where(better, closest.values, best)
        nearest[better] = images[closest.indices][better]
    return nearest, best.isfinite()


def _distances(problem: Problem, images: Tensor, predictions: Tensor) -> Tensor:
    """Returns L2 distances (N, M) to other images, infinite where their prediction is a label of the attacked image."""
    distances = torch.cdist(problem.images.flatten(1), images.flatten(1))
    return distances.masked_fill(holds_for_all(predictions, problem.labels), float("inf"))
