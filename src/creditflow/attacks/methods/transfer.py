"""Transfer: PGD on another model, whose images are then shown to this one; L-infinity.

The other model is called the surrogate. A workflow takes two: this model's twin of the same seed, and the network that
backpropagation trained with another seed.
"""

from collections.abc import Sequence
from dataclasses import replace

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd
from creditflow.attacks.methods.settings.transfer import Settings
from creditflow.core.errors import UserError


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the surrogate's cross-entropy of the true label. The model itself is not asked.

    Raises UserError if there are several surrogates.
    """
    if len(problem.surrogates) > 1:
        raise UserError(f"attack transfer uses one surrogate, not {len(problem.surrogates)}; give it one")
    (surrogate,) = problem.surrogates.values()
    return pgd.propose(replace(problem, model=surrogate), epsilons, settings)


ATTACK = Attack(norm="linf", uses_gradient=False, propose=propose, uses_surrogate=True)
