"""The entry point of attacks on classifiers: attack a model at all epsilons, and judge what the attack proposes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import foolbox
import torch
from torch import Tensor, nn

from creditflow.attacks import guards
from creditflow.attacks.attack import Attack, Norm, Pool, Problem, Views
from creditflow.attacks.epsilons import check_epsilons
from creditflow.attacks.foolbox_adapter import wrap
from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.labels import cross_entropies, is_correct, per_class
from creditflow.data.prepared import Subset


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
    """

    correct: Tensor
    perturbation: Tensor
    distance: Tensor | None
    clean_correct: Tensor
    failed: int
    queries_per_image: float
    checks: dict[str, Any]


@dataclass(frozen=True)
class Helpers:
    """What an attack may use beside the model; see `Problem`."""

    surrogate: nn.Module | None = None
    views: Views | None = None


def get_attack(name: str) -> Attack:
    """Returns the attack with this id (a file in `attacks/methods`). Raises UserError if there is none."""
    attack: Attack = plugins.load("attack", name).ATTACK
    return replace(attack, name=name)


def choose_images(data: Subset, n_images: int) -> Tensor:
    """Returns the indices (n_images,) of the images to attack: the same for every rule and seed, so results pair.

    Raises UserError if there are fewer images.
    """
    if n_images > len(data.labels):
        raise UserError(f"{n_images} images to attack, but the test split has {len(data.labels)}; lower `images`")
    order = torch.randperm(len(data.labels), generator=randomness.generator("attacked images"))
    return order[:n_images].sort().values


def run_attack(
    attack: Attack,
    settings: Any,
    model: nn.Module,
    data: Subset,
    chosen: Tensor,
    epsilons: Sequence[float],
    *,
    batch_size: int,
    seed: int,
    helpers: Helpers | None = None,
) -> AttackResult:
    """Attacks the chosen images in batches, at all epsilons.

    Models run in eval mode; their parameters collect no gradient, and their flags and modes are restored.

    Raises:
        UserError: images that are not uint8; epsilons that do not rise; outputs that are probabilities, or that are not
            finite, be it at clean images or at an image that the attack tried; an attack that needs a surrogate
            without one.
        RuntimeError: an attack broke its bounds (norm, pixel range, finite values), or foolbox and we disagree on
            the clean accuracy: the numbers would mean nothing.
    """
    helpers = helpers or Helpers()
    _check_task(attack, data, epsilons, helpers)
    results, observed, n_classes = [], [], 0
    with ExitStack() as stack:
        counter = guards.QueryWatch(attack.name)
        for network, hook in [(model, counter.hook), (helpers.surrogate, counter.surrogate_hook)]:
            if network is not None:
                stack.enter_context(frozen(network))
                stack.callback(network.register_forward_hook(hook).remove)
        stack.enter_context(randomness.global_seed("attack", seed))
        pool = _pool(model, data) if attack.uses_pool else None
        views, loss = _counted(helpers.views, counter), attack.loss or cross_entropies
        for images, labels in data.batches(chosen.split(batch_size)):
            problem = Problem(model, images, labels, pool, helpers.surrogate, views, loss)
            guards.check_outputs(problem.logits)
            n_classes = problem.n_classes
            results.append(_attack_batch(attack, settings, problem, epsilons, counter))
            observed.append(guards.observe(problem, gradient=attack.uses_gradient and attack.loss is not None))
    signs = {name: torch.cat([batch[name] for batch in observed]) for name in observed[0]}
    labels = data.labels[chosen.to(data.labels.device)].cpu()
    return _join(results, guards.summarise(signs) | _counts(attack, epsilons, results, labels, n_classes))


def _check_task(attack: Attack, data: Subset, epsilons: Sequence[float], helpers: Helpers) -> None:
    check_epsilons(epsilons)
    if not isinstance(data.images, ImageFiles):
        guards.check_images(data.images)
    if data.multi_label and not attack.multi_label:
        raise UserError(
            "this attack needs images of one label each; take it off this dataset (`datasets` of the attack)"
        )
    if attack.uses_surrogate and helpers.surrogate is None:
        raise UserError("this attack transfers images from another model: give it a surrogate")


def _counts(
    attack: Attack, epsilons: Sequence[float], results: Sequence[AttackResult], labels: Tensor, n_classes: int
) -> dict[str, Any]:
    """Returns what else a reader has to know.

    This is how many images there were to attack, which classes have none, and whether epsilon 0.5 falls short.
    """
    clean = torch.cat([result.clean_correct for result in results])
    counted = per_class(labels, n_classes)
    counts: dict[str, Any] = {
        "clean_accuracy": float(clean.double().mean()),
        "attackable_images": int(clean.sum()),
        "classes_without_image": (counted == 0).nonzero().flatten().tolist(),
        "failed_starts": sum(result.failed for result in results),
    }
    if attack.norm == "linf" and max(epsilons) >= 0.5:
        # At 0.5 all images can be made the same grey. If more than one class is right then, the attack was too weak.
        left = torch.cat([result.correct[-1] for result in results])
        counts["above_chance_at_half"] = int(left.sum()) > int(counted.max())
    return counts


@torch.no_grad()
def _pool(model: nn.Module, data: Subset) -> Pool:
    predictions = []
    for images, _ in data.batches(data.in_order()):
        outputs = model(images)
        guards.check_finite(outputs)
        predictions.append(outputs.argmax(1))
    return Pool(data, torch.cat(predictions))


def _attack_batch(
    attack: Attack, settings: Any, problem: Problem, epsilons: Sequence[float], counter: guards.QueryWatch
) -> AttackResult:
    counter.n_images = 0
    with counter.watching(*epsilons):
        candidates = attack.propose(problem, epsilons, settings)
    queries = counter.n_images / len(problem.labels)
    clean = is_correct(problem.logits, problem.labels)
    if problem.labels.dim() == 1:
        _compare_with_foolbox(problem, clean)
    sizes = [perturbation_size(images - problem.images, attack.norm) for images in candidates.images]
    for images, size, epsilon in zip(candidates.images, sizes, epsilons, strict=True):
        check_bounds(images, size, epsilon, candidates.lowest)
    correct = []
    for images, epsilon in zip(candidates.images, epsilons, strict=True):
        with counter.watching(epsilon):
            correct.append(_judge(problem, images))
    return AttackResult(
        correct=torch.stack(correct).cpu(),
        perturbation=torch.stack(sizes).cpu(),
        distance=candidates.distance,
        clean_correct=clean.cpu(),
        failed=candidates.failed,
        queries_per_image=queries,
        checks={},
    )


def _compare_with_foolbox(problem: Problem, clean: Tensor) -> None:
    theirs = foolbox.accuracy(wrap(problem.model, problem.images), problem.images, problem.labels)
    ours = float(clean.float().mean())
    if abs(theirs - ours) > 1e-6:
        raise RuntimeError(f"foolbox measures a clean accuracy of {theirs}, the judge one of {ours}")


def perturbation_size(delta: Tensor, norm: Norm) -> Tensor:
    """Returns the norm (N,) of perturbations (N, C, H, W), over all entries of each; L0 counts changed positions."""
    if norm == "l0":
        return (delta != 0).any(1).flatten(1).sum(1).to(delta.dtype)
    size: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=float("inf") if norm == "linf" else 2, dim=1)
    return size


@torch.no_grad()
def _judge(problem: Problem, images: Tensor) -> Tensor:
    return is_correct(problem.model(images), problem.labels)


def check_bounds(images: Tensor, size: Tensor, epsilon: float, lowest: float = 0.0) -> None:
    """Raises RuntimeError if proposed images (N, C, H, W), or the sizes (N,) of perturbations, break their bounds."""
    if not bool(images.isfinite().all()) or float(images.min()) < lowest or float(images.max()) > 1:
        raise RuntimeError(f"the attack proposed pixels outside [{lowest:g}, 1] at epsilon {epsilon}")
    # Adding and subtracting float32 pixels rounds at about 1e-7 per pixel.
    if float(size.max()) > epsilon * (1 + 1e-5) + 1e-6:
        raise RuntimeError(f"the attack exceeded epsilon {epsilon}: {float(size.max())}")


def _join(results: Sequence[AttackResult], checks: dict[str, Any]) -> AttackResult:
    sizes = [len(result.clean_correct) for result in results]
    distances = [result.distance for result in results if result.distance is not None]
    return AttackResult(
        correct=torch.cat([result.correct for result in results], dim=1),
        perturbation=torch.cat([result.perturbation for result in results], dim=1),
        distance=torch.cat(distances) if distances else None,
        clean_correct=torch.cat([result.clean_correct for result in results]),
        failed=sum(result.failed for result in results),
        queries_per_image=sum(n * result.queries_per_image for n, result in zip(sizes, results, strict=True))
        / sum(sizes),
        checks=checks,
    )


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode, without gradients of its parameters; at the end modes and flags are restored."""
    modes = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _counted(views: Views | None, counter: guards.QueryWatch) -> Views | None:
    """Returns views whose queries are counted, too."""
    if views is None:
        return None

    def counted(n: int, /) -> Sequence[nn.Module]:
        made = views(n)
        for view in made:
            view.register_forward_hook(counter.hook)
        return made

    return counted
