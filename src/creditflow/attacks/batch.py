"""One batch: it is attacked, and what the attack proposes is judged, in this one place."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import foolbox
import torch
from torch import Tensor

from creditflow.attacks import guards
from creditflow.attacks.attack import Attack, Candidates, Problem, Stage, perturbation_size
from creditflow.attacks.convergence import falls_later
from creditflow.attacks.followed import FollowedGradients
from creditflow.attacks.foolbox_adapter import wrap
from creditflow.attacks.kept import Kept, join
from creditflow.attacks.stages import final
from creditflow.data.labels import holds, is_correct


@dataclass(frozen=True)
class AttackResult:
    """Outcomes of one attack on one model, on the CPU.

    Attributes:
        correct: bool (K, N), whether the model still predicts the true label of image n at epsilon k.
        perturbation: float32 (K, N), size of what was tried, in the attack's norm.
        distance: float32 (N,), size of the smallest successful perturbation, for attacks that look for it.
        clean_correct: bool (N,), the same as `correct` before the attack.
        failed: number of images that the attack could not start on; they count as correct if they were.
        queries_per_image: forward passes per image that the attack itself made.
        checks: what the guards measured, for the record: shares of images, counts and accuracies.
        fooled_by: uint8 (K, N), for an attack of several stages: the number, from 1, of the stage that fooled the model
            at epsilon k; 0 for an image that stands, or that was wrong from the start.
        kept: the first images and what became of them, if they were asked for.
    """

    correct: Tensor
    perturbation: Tensor
    distance: Tensor | None
    clean_correct: Tensor
    failed: int
    queries_per_image: float
    checks: dict[str, Any]
    fooled_by: Tensor | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Batch:
    """What came out for one batch.

    Attributes:
        result: its result, without checks.
        signs: signs (N,) that the guards saw, by name.
        stages: the stages of the attack, by name.
        falls_later: float64 (K, N), see `convergence.falls_later`; None if it was not asked for, or cannot be known.
    """

    result: AttackResult
    signs: dict[str, Tensor]
    stages: Mapping[str, Stage]
    falls_later: Tensor | None


def attack_batch(
    attack: Attack,
    settings: Any,
    problem: Problem,
    epsilons: Sequence[float],
    counter: guards.QueryWatch,
    keep: int,
    converging: int,
    followed: FollowedGradients | None = None,
) -> Batch:
    """Attacks a batch at all epsilons and judges what the attack proposes.

    `keep` is the number of images to keep, and `converging` the largest number of images that stand at which twice the
    steps are tried, 0 for none. `followed` checks gradients while the attack runs.
    """
    counter.n_images = 0
    with counter.watching(*epsilons), followed.watching(problem.model) if followed else nullcontext():
        candidates = attack.propose(problem, epsilons, settings)
    queries = counter.n_images / len(problem.labels)
    result = replace(_judged(attack, problem, candidates, epsilons, counter, keep), queries_per_image=queries)
    falls = None
    if converging:
        with counter.watching(*epsilons):
            falls = falls_later(attack, settings, problem, epsilons, result.correct, converging)
    signs = guards.observe(problem, gradient=False)
    if attack.uses_gradient and attack.loss is not None:
        with attack.differentiated(problem, settings) as seen:
            signs |= guards.observe_gradient(seen)
    return Batch(result, signs, candidates.stages, falls)


def _judged(
    attack: Attack,
    problem: Problem,
    candidates: Candidates,
    epsilons: Sequence[float],
    counter: guards.QueryWatch,
    keep: int,
) -> AttackResult:
    """Returns what the model says of proposed images; the number of queries is not filled in."""
    clean = is_correct(problem.logits, problem.labels)
    if problem.labels.dim() == 1:
        _compare_with_foolbox(problem, clean)
    sizes = [perturbation_size(images - problem.images, attack.norm) for images in candidates.images]
    for images, size, epsilon in zip(candidates.images, sizes, epsilons, strict=True):
        check_bounds(images, size, epsilon, candidates.lowest)
    predictions = []
    for images, epsilon in zip(candidates.images, epsilons, strict=True):
        with counter.watching(epsilon):
            predictions.append(_predicted(problem, images))
    correct = torch.stack([holds(predicted, problem.labels) for predicted in predictions])
    return AttackResult(
        correct=correct.cpu(),
        perturbation=torch.stack(sizes).cpu(),
        distance=candidates.distance,
        clean_correct=clean.cpu(),
        failed=candidates.failed,
        queries_per_image=0.0,
        checks={},
        fooled_by=None if candidates.fooled_by is None else final(candidates.fooled_by, correct).cpu(),
        kept=_kept(problem, candidates, torch.stack(predictions), keep) if keep > 0 else None,
    )


def _kept(problem: Problem, candidates: Candidates, predictions: Tensor, keep: int) -> Kept:
    """Returns the first `keep` images of a batch, or all if there are fewer."""
    return Kept(
        images=torch.stack([images[:keep] for images in candidates.images]).cpu(),
        clean=problem.images[:keep].cpu(),
        predictions=predictions[:, :keep].cpu(),
        clean_predictions=problem.logits[:keep].argmax(1).cpu(),
        labels=problem.labels[:keep].cpu(),
    )


def _compare_with_foolbox(problem: Problem, clean: Tensor) -> None:
    by_foolbox = foolbox.accuracy(wrap(problem.model, problem.images), problem.images, problem.labels)
    by_judge = float(clean.float().mean())
    if abs(by_foolbox - by_judge) <= 1e-6:
        return
    with torch.no_grad():
        same = torch.equal(problem.model(problem.images), problem.logits)
    if same:  # else the outputs are random, of which a guard tells
        raise RuntimeError(f"foolbox measures a clean accuracy of {by_foolbox}, the judge one of {by_judge}")


@torch.no_grad()
def _predicted(problem: Problem, images: Tensor) -> Tensor:
    predicted: Tensor = problem.model(images).argmax(1)
    return predicted


def check_bounds(images: Tensor, size: Tensor, epsilon: float, lowest: float = 0.0) -> None:
    """Raises RuntimeError if proposed images (N, C, H, W), or the sizes (N,) of perturbations, break their bounds."""
    if not bool(images.isfinite().all()) or float(images.min()) < lowest or float(images.max()) > 1:
        raise RuntimeError(f"the attack proposed pixels outside [{lowest:g}, 1] at epsilon {epsilon}")
    # Adding and subtracting float32 pixels rounds at about 1e-7 per pixel.
    if float(size.max()) > epsilon * (1 + 1e-5) + 1e-6:
        raise RuntimeError(f"the attack exceeded epsilon {epsilon}: {float(size.max())}")


def join_results(results: Sequence[AttackResult], keep: int) -> AttackResult:
    """Returns the result over all batches; its checks are not filled in."""
    sizes = [len(result.clean_correct) for result in results]
    distances = [result.distance for result in results if result.distance is not None]
    fooled_by = [result.fooled_by for result in results if result.fooled_by is not None]
    kept = [result.kept for result in results if result.kept is not None]
    return AttackResult(
        correct=torch.cat([result.correct for result in results], dim=1),
        perturbation=torch.cat([result.perturbation for result in results], dim=1),
        distance=torch.cat(distances) if distances else None,
        clean_correct=torch.cat([result.clean_correct for result in results]),
        failed=sum(result.failed for result in results),
        queries_per_image=sum(n * result.queries_per_image for n, result in zip(sizes, results, strict=True))
        / sum(sizes),
        checks={},
        fooled_by=torch.cat(fooled_by, dim=1) if fooled_by else None,
        kept=join(kept, keep) if kept else None,
    )
