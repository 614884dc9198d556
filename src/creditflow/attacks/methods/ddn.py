"""DDN (Rony et al., 2019): smallest perturbations, by steps along the gradient and a size of their own; L2."""

from collections.abc import Sequence

from foolbox.attacks import DDNAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest
from creditflow.attacks.methods.settings.ddn import Settings


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label."""
    attack = DDNAttack(init_epsilon=settings.first_size, steps=settings.steps, gamma=settings.gamma)
    return smallest(attack, problem, epsilons)


ATTACK = Attack(norm="l2", uses_gradient=True, propose=propose)
