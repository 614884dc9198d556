"""FGSM (Goodfellow et al., 2015): x + epsilon sign(grad), one step, L-infinity."""

from collections.abc import Sequence

import foolbox

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import TargetsLoss, fixed_epsilon
from creditflow.attacks.methods.settings.fgsm import Settings


class _LinfFGSM(TargetsLoss, foolbox.attacks.LinfFastGradientAttack):
    """foolbox's attack with our loss."""


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label. Without random start all epsilons share one gradient."""
    if settings.random_start:
        return fixed_epsilon(_LinfFGSM(random_start=True), problem, epsilons)
    images = problem.images
    direction = problem.loss_and_gradient[1].sign()
    return Candidates([(images + (epsilon * direction).clamp(-epsilon, epsilon)).clamp(0, 1) for epsilon in epsilons])


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, multi_label=True)
