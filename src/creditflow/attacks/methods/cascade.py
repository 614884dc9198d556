"""Cascade: several attacks after one another, each at the images that still stand, as AutoAttack does; L-infinity.

Cheap attacks run first. An image that falls at one epsilon falls at the larger ones, too, by the same adversarial
image. Only what stages after those with gradients have fooled, which are the Square Attack and a transfer that runs
last, faces the gradient stages again at the next epsilon.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from creditflow.attacks import guards
from creditflow.attacks.attack import Attack, Candidates, Problem, Stage
from creditflow.attacks.methods import (
    apgd_ce,
    apgd_dlr,
    apgd_scaled,
    apgd_targeted,
    fab,
    pgd_smoothed,
    square,
    transfer,
)
from creditflow.attacks.methods.settings.cascade import Settings
from creditflow.data.labels import cross_entropies, is_correct

#: The stages in their order, which is that of the settings.
STAGES: Mapping[str, Attack] = {
    "transfer": transfer.ATTACK,
    "apgd_scaled": apgd_scaled.ATTACK,
    "apgd_ce": apgd_ce.ATTACK,
    "apgd_dlr": apgd_dlr.ATTACK,
    "apgd_targeted": apgd_targeted.ATTACK,
    "fab": fab.ATTACK,
    "pgd_smoothed": pgd_smoothed.ATTACK,
    "square": square.ATTACK,
}

#: The number from which on stages need no gradient of the model: Square's, and then that of a transfer that runs last.
_WITHOUT_GRADIENT = len(STAGES)


@dataclass
class _Standing:
    """How far a cascade is at one epsilon.

    Attributes:
        images: what is proposed (N, C, H, W); the image itself where it stands.
        fooled_by: uint8 (N,), number of the stage that fooled the model; 0 where none did.
        right: bool (N,), whether the model is right without an attack.
    """

    images: Tensor
    fooled_by: Tensor
    right: Tensor

    def indices(self) -> Tensor:
        """Returns the images that stand, int64 (M,)."""
        return (self.right & (self.fooled_by == 0)).nonzero()[:, 0]

    def next_epsilon(self, clean: Tensor) -> tuple["_Standing", Tensor]:
        """Returns the state at the start of a larger epsilon, and which images stand again there, bool (N,).

        These are the ones that only the stages after those with gradients fooled.
        """
        late = self.fooled_by >= _WITHOUT_GRADIENT
        images = torch.where(late[:, None, None, None], clean, self.images)
        return _Standing(images, self.fooled_by.masked_fill(late, 0), self.right), late


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Runs the stages that the settings name, at one epsilon after the other."""
    numbers = _numbers(settings)
    right = is_correct(problem.logits, problem.labels)
    nobody = torch.zeros(len(right), dtype=torch.uint8, device=right.device)
    state = _Standing(problem.images, nobody, right)
    images, fooled_by = [], []
    for epsilon in epsilons:
        if epsilon > 0:
            state = _at_epsilon(problem, epsilon, settings, numbers, state)
        images.append(state.images)
        fooled_by.append(state.fooled_by)
    return Candidates(images, fooled_by=torch.stack(fooled_by), stages=_stages(problem, numbers))


def _numbers(settings: Settings) -> dict[str, int]:
    """Returns the numbers of the stages that run, in their order."""
    numbers = {name: number for number, name in enumerate(STAGES, start=1) if getattr(settings, name) is not None}
    if settings.transfer_last and "transfer" in numbers:
        del numbers["transfer"]  # it moves to the end
        numbers["transfer"] = _WITHOUT_GRADIENT + 1
    return numbers


def _at_epsilon(
    problem: Problem, epsilon: float, settings: Settings, numbers: Mapping[str, int], before: _Standing
) -> _Standing:
    state, late = before.next_epsilon(problem.images)
    for name, number in numbers.items():
        if number >= _WITHOUT_GRADIENT:  # what fooled the model at a smaller epsilon does so at this one
            late = late & (state.fooled_by == 0)
            state.images[late], state.fooled_by[late] = before.images[late], before.fooled_by[late]
        for changes in _variants(name, problem):
            standing = state.indices()
            if len(standing):
                part = problem.part(standing, loss=STAGES[name].loss or cross_entropies, **changes)
                images = STAGES[name].propose(part, [epsilon], getattr(settings, name)).images[0]
                fooled = _fooled(part, images)
                state.images[standing[fooled]] = images[fooled]
                state.fooled_by[standing[fooled]] = number
    return state


def _variants(name: str, problem: Problem) -> Iterator[dict[str, Any]]:
    """Yields what differs in the problem for each run of a stage: `transfer` runs once for each surrogate."""
    if name != "transfer":
        yield {}
        return
    for surrogate, network in problem.surrogates.items():
        yield {"surrogates": {surrogate: network}}


@torch.no_grad()
def _fooled(problem: Problem, images: Tensor) -> Tensor:
    """Returns whether images (M, C, H, W) fool the model (M,); it is not asked for those that an attack gave up."""
    changed = (images != problem.images).flatten(1).any(1)
    fooled = torch.zeros_like(changed)
    if bool(changed.any()):
        fooled[changed] = ~is_correct(problem.model(images[changed]), problem.labels[changed])
    return fooled


def _stages(problem: Problem, numbers: Mapping[str, int]) -> dict[str, Stage]:
    """Returns what the record needs to know of each stage."""
    stages = {}
    for name, number in numbers.items():
        attack = STAGES[name]
        signs = None
        if attack.uses_gradient and attack.loss is not None:
            signs = guards.observe_gradient(replace(problem, loss=attack.loss))
        stages[name] = Stage(number, attack.uses_gradient, attack.scale_free, signs)
    return stages


ATTACK = Attack(
    norm="linf",
    uses_gradient=True,
    propose=propose,
    uses_surrogate=True,
    loss=None,
    converges=True,
)
