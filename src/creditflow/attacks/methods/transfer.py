"""Transfer: PGD on another model, whose images are then shown to this one; L-infinity.

The other model, the surrogate, is this model's twin that backpropagation fine-tuned.
"""

from collections.abc import Sequence
from dataclasses import replace

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd
from creditflow.attacks.methods.settings.transfer import Settings


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the surrogate's cross-entropy of the true label. The model itself is not asked."""
    assert problem.surrogate is not None
    return pgd.propose(replace(problem, model=problem.surrogate), epsilons, settings)


ATTACK = Attack(norm="linf", uses_gradient=False, propose=propose, uses_surrogate=True)
