"""PGD (Madry et al., 2018): projected sign-gradient steps in the L-infinity ball."""

from collections.abc import Callable, Sequence

import eagerpy as ep
import foolbox

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import TargetsLoss, fixed_epsilon
from creditflow.attacks.methods.settings.pgd import Settings


class _LinfPGD(TargetsLoss, foolbox.attacks.LinfPGD):
    """foolbox's attack with our loss. Without random start all epsilons share the first gradient with the guards."""

    def __init__(self, problem: Problem, settings: Settings):
        super().__init__(steps=settings.steps, rel_stepsize=settings.relative_step, random_start=settings.random_start)
        self._problem = problem

    def value_and_grad(self, loss_fn: Callable[[ep.Tensor], ep.Tensor], x: ep.Tensor) -> tuple[ep.Tensor, ep.Tensor]:
        """Returns the sum of the images' losses, and its gradient."""
        if x.raw is not self._problem.images:
            return super().value_and_grad(loss_fn, x)
        losses, gradient = self._problem.loss_and_gradient
        return ep.astensor(losses.sum()), ep.astensor(gradient)


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label."""
    return fixed_epsilon(_LinfPGD(problem, settings), problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, multi_label=True)
