"""The entry point of attacks on hash codes: attack queries at all epsilons, and keep the codes of what is proposed."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from creditflow.attacks import guards
from creditflow.attacks.attack import perturbation_size
from creditflow.attacks.batch import check_bounds
from creditflow.attacks.epsilons import check_epsilons
from creditflow.attacks.hash_attack import HashAttack, HashProblem
from creditflow.core import plugins
from creditflow.data.prepared import Subset
from creditflow.derivatives.frozen import frozen
from creditflow.retrieval.codes import hash_codes
from creditflow.retrieval.storage import Encoded


@dataclass(frozen=True)
class Queries:
    """What is attacked, and what attackers know of the data.

    Attributes:
        data: images and labels of all queries.
        chosen: indices (N,) of the queries to attack.
        train: codes and labels of the training images.
    """

    data: Subset
    chosen: Tensor
    train: Encoded


@dataclass(frozen=True)
class Shown:
    """Which attacked images are kept to look at: places among the chosen queries, at one epsilon."""

    places: tuple[int, ...]
    epsilon: float

    @classmethod
    def spread(cls, n: int, n_queries: int, epsilons: Sequence[float]) -> Self:
        """Returns n places that spread over the queries, which come class by class, at the middle epsilon."""
        places = torch.linspace(0, n_queries - 1, min(n, n_queries)).long()
        return cls(tuple(places.tolist()), epsilons[len(epsilons) // 2])

    def within(self, start: int, stop: int) -> list[int]:
        """Returns the places from start to below stop, counted from start."""
        return [place - start for place in self.places if start <= place < stop]


@dataclass(frozen=True)
class HashAttackResult:
    """Outcomes of one attack on one model, on the CPU.

    Attributes:
        epsilons: the sizes (E,) of perturbations that were allowed.
        codes: int8 (E, N, K) of the perturbed images at each epsilon.
        clean_codes: int8 (N, K).
        perturbation: float32 (E, N), size of what was tried.
        shown: which images are kept to look at.
        examples: float32 (n, C, H, W), these images, attacked; none if `shown` is None.
        mean_output: mean |f| of the clean outputs. Where it is large, surrogates such as tanh(f) are flat.
        zero_gradients: share of images and steps at which the gradient was exactly zero although a bit of the code was
            still to flip.
    """

    epsilons: tuple[float, ...]
    codes: Tensor
    clean_codes: Tensor
    perturbation: Tensor
    shown: Shown | None
    examples: Tensor
    mean_output: float
    zero_gradients: float


def get_hash_attack(name: str) -> HashAttack:
    """Returns the attack with this id (a file in `attacks/hashing`). Raises UserError if there is none."""
    attack: HashAttack = plugins.load("hash_attack", name).ATTACK
    return replace(attack, name=name)


def run_hash_attack(
    attack: HashAttack,
    settings: Any,
    model: nn.Module,
    queries: Queries,
    epsilons: Sequence[float],
    *,
    batch_size: int,
    seed: int,
    shown: Shown | None = None,
) -> HashAttackResult:
    """Attacks the chosen queries in batches, at each epsilon; what happens to an image does not depend on its batch.

    The model runs in eval mode; its parameters collect no gradient, and its flags and modes are restored.

    Raises:
        UserError: epsilons that do not rise; outputs that are not finite, be it at clean images or at an image that
            the attack tried.
        RuntimeError: the attack broke its bounds.
    """
    check_epsilons(epsilons)
    train = [tensor.to(queries.data.device) for tensor in (queries.train.codes, queries.train.labels)]
    batches: list[_Batch] = []
    start = 0
    watch = guards.QueryWatch(attack.name)
    with frozen(model), ExitStack() as stack:
        stack.callback(model.register_forward_hook(watch.hook).remove)
        parts = queries.chosen.split(batch_size)
        for part, (images, labels) in zip(parts, queries.data.batches(parts), strict=True):
            names = tuple((seed, index) for index in part.tolist())
            problem = HashProblem(model, images, labels, train[0], train[1], names)
            batches.append(_attack_batch(attack, settings, problem, epsilons, watch, shown, start))
            start += len(part)
    return _join(batches, epsilons, shown)


@dataclass(frozen=True)
class _Batch:
    """Outcomes of one batch; `size` is the sum of the images' mean |f|, `zero_gradients` has a share per gradient."""

    codes: Tensor
    clean_codes: Tensor
    perturbation: Tensor
    examples: list[Tensor]
    size: float
    zero_gradients: list[Tensor]


def _attack_batch(
    attack: HashAttack,
    settings: Any,
    problem: HashProblem,
    epsilons: Sequence[float],
    watch: guards.QueryWatch,
    shown: Shown | None,
    start: int,
) -> _Batch:
    guards.check_finite(problem.outputs)
    clean_codes = hash_codes(problem.outputs).cpu()
    size = float(problem.outputs.abs().mean(1).sum())
    proposed = []
    for epsilon in epsilons:
        with watch.watching(epsilon):
            proposed.append(attack.propose(problem, epsilon, settings))
    sizes = torch.stack([perturbation_size(images - problem.images, attack.norm) for images in proposed]).cpu()
    for images, reached, epsilon in zip(proposed, sizes, epsilons, strict=True):
        check_bounds(images, reached, epsilon)
    examples = [
        images[place].cpu()
        for images, epsilon in zip(proposed, epsilons, strict=True)
        if shown is not None and epsilon == shown.epsilon
        for place in shown.within(start, start + len(images))
    ]
    codes = []
    for images, epsilon in zip(proposed, epsilons, strict=True):
        with watch.watching(epsilon):
            codes.append(hash_codes(_outputs(problem.model, images)).cpu())
    return _Batch(torch.stack(codes), clean_codes, sizes, examples, size, problem.zero_gradients)


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = model(images)
    return outputs


def _join(batches: Sequence[_Batch], epsilons: Sequence[float], shown: Shown | None) -> HashAttackResult:
    size = 0.0
    for batch in batches:  # one after the other: `sum` compensates rounding errors in some versions of Python only
        size += batch.size
    clean_codes = torch.cat([batch.clean_codes for batch in batches])
    examples = [example for batch in batches for example in batch.examples]
    zero_gradients = [share for batch in batches for share in batch.zero_gradients]
    return HashAttackResult(
        epsilons=tuple(epsilons),
        codes=torch.cat([batch.codes for batch in batches], 1),
        clean_codes=clean_codes,
        perturbation=torch.cat([batch.perturbation for batch in batches], 1),
        shown=shown,
        examples=torch.stack(examples) if examples else torch.empty(0),
        mean_output=size / len(clean_codes),
        zero_gradients=float(torch.stack(zero_gradients).mean()) if zero_gradients else 0.0,
    )
