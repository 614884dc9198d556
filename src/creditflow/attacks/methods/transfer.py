"""Transfer: PGD on another model, its twin fine-tuned with backpropagation, whose images are then shown to this one; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd


@dataclass(frozen=True)
class Settings(pgd.Settings):
    """As PGD's."""


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the surrogate's cross-entropy of the true label; the model itself is not asked."""
    assert problem.surrogate is not None
    return pgd.propose(replace(problem, model=problem.surrogate), epsilons, settings)


ATTACK = Attack(norm="linf", uses_gradient=False, settings=Settings, propose=propose, uses_surrogate=True)
