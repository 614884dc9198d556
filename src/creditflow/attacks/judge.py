"""The entry point of attacks on classifiers: attack a model at all epsilons, in batches, with guards."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks import guards
from creditflow.attacks.attack import Attack, Pool, Problem, Views
from creditflow.attacks.batch import AttackResult, attack_batch, join_results
from creditflow.attacks.convergence import fallen_shares
from creditflow.attacks.epsilons import check_epsilons
from creditflow.attacks.followed import FollowedGradients
from creditflow.attacks.kinds import needs_surrogate
from creditflow.attacks.stages import join_stages, stage_checks
from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.merging import merged
from creditflow.core.settings import plain
from creditflow.data.dataset import ImageFiles
from creditflow.data.labels import cross_entropies, per_class
from creditflow.data.prepared import Subset
from creditflow.data.unit_images import UnitImages
from creditflow.derivatives.frozen import frozen


@dataclass(frozen=True)
class Helpers:
    """What an attack may use beside the model; see `Problem`."""

    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
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
    keep: int = 0,
    check_convergence: bool = False,
    convergence_images: int | None = None,
    confirm_gradients: bool = False,
) -> AttackResult:
    """Attacks the chosen images in batches, at all epsilons.

    Models run in eval mode; their parameters collect no gradient, and their flags and modes are restored. The first
    `keep` images are kept with what the attack made of them. To check convergence, the attack runs again with twice
    its steps at the images that stand, or at about `convergence_images` of them; the outcomes stay those of the first
    run. To confirm gradients, some of those that the attack follows are compared with what the outputs do.

    Raises:
        UserError: images that are not uint8; epsilons that do not rise; outputs that are probabilities, or that are not
            finite, be it at clean images or at an image that the attack tried; an attack that needs a surrogate
            without one; more images to keep than to attack; a check of convergence of an attack whose steps don't
            adapt.
        RuntimeError: an attack broke its bounds (norm, pixel range, finite values), or foolbox and we disagree on
            the clean accuracy: the numbers would mean nothing.
    """
    helpers = helpers or Helpers()
    _check_task(attack, settings, data, epsilons, helpers)
    _check_extras(attack, len(chosen), keep, check_convergence)
    batches, n_kept = [], 0
    with ExitStack() as stack:
        counter = guards.QueryWatch(attack.name)
        judging = confirm_gradients and attack.uses_gradient
        followed = FollowedGradients(counter, attack.norm, max(epsilons)) if judging else None
        on_begin = followed.begin if followed else None
        hooks = [(model, counter.hook), *((other, counter.surrogate_hook) for other in helpers.surrogates.values())]
        for network, hook in hooks:
            stack.enter_context(frozen(network))
            stack.callback(network.register_forward_hook(hook).remove)
        stack.enter_context(randomness.global_seed("attack", seed))
        pool = _pool(model, data) if attack.uses_pool else None
        views, loss = _counted(helpers.views, counter), attack.loss or cross_entropies
        for images, labels in data.batches(chosen.split(batch_size)):
            problem = Problem(model, images, labels, pool, helpers.surrogates, views, loss, on_begin)
            guards.check_outputs(problem.logits)
            most = len(labels) if convergence_images is None else ceil(convergence_images * len(labels) / len(chosen))
            converging = most if check_convergence else 0
            batch = attack_batch(attack, settings, problem, epsilons, counter, keep - n_kept, converging, followed)
            batches.append(batch)
            n_kept += len(labels)
    result = join_results([batch.result for batch in batches], keep)
    labels = data.labels[chosen.to(data.labels.device)].cpu()
    signs = guards.join_signs([batch.signs for batch in batches])
    checks = guards.summarise(signs) | _counts(attack, epsilons, result, labels, problem.n_classes)
    if followed is not None:
        checks |= followed.shares(len(chosen))
    falls = [batch.falls_later for batch in batches if batch.falls_later is not None]
    if falls:
        shares = fallen_shares(torch.cat(falls, dim=1))
        checks |= {"unconverged": max(shares), "at_epsilon": {"unconverged": shares}}
    if result.fooled_by is not None:
        stages = join_stages([batch.stages for batch in batches])
        checks = merged(checks, stage_checks(stages, result.correct, result.fooled_by))
    return replace(result, checks=checks)


def _check_task(attack: Attack, settings: Any, data: Subset, epsilons: Sequence[float], helpers: Helpers) -> None:
    check_epsilons(epsilons)
    if not isinstance(data.images, ImageFiles) and not isinstance(data, UnitImages):
        guards.check_images(data.images)
    if data.multi_label and not attack.multi_label:
        raise UserError(
            "this attack needs images of one label each; take it off this dataset (`datasets` of the attack)"
        )
    if attack.uses_surrogate and not helpers.surrogates and needs_surrogate(attack.name, plain(settings)):
        raise UserError("this attack transfers images from another model: give it a surrogate")


def _check_extras(attack: Attack, n_images: int, keep: int, check_convergence: bool) -> None:
    if keep > n_images:
        raise UserError(f"{keep} images to keep, but only {n_images} are attacked; lower `keep`")
    if check_convergence and not attack.converges:
        raise UserError(f"attack {attack.name} has no steps that adapt, so that its convergence can't be checked")


def _counts(
    attack: Attack, epsilons: Sequence[float], result: AttackResult, labels: Tensor, n_classes: int
) -> dict[str, Any]:
    """Returns what else a reader has to know.

    This is how many images there were to attack, which classes have none, and whether epsilon 0.5 falls short.
    """
    counted = per_class(labels, n_classes)
    counts: dict[str, Any] = {
        "clean_accuracy": float(result.clean_correct.double().mean()),
        "attackable_images": int(result.clean_correct.sum()),
        "classes_without_image": (counted == 0).nonzero().flatten().tolist(),
        "failed_starts": result.failed,
    }
    if attack.norm == "linf" and max(epsilons) >= 0.5:
        # At 0.5 all images can be made the same grey. If more than one class is right then, the attack was too weak.
        counts["above_chance_at_half"] = int(result.correct[-1].sum()) > int(counted.max())
    return counts


@torch.no_grad()
def _pool(model: nn.Module, data: Subset) -> Pool:
    predictions = []
    for images, _ in data.batches(data.in_order()):
        outputs = model(images)
        guards.check_finite(outputs)
        predictions.append(outputs.argmax(1))
    return Pool(data, torch.cat(predictions))


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
