"""FMN (Pintor et al., 2021): smallest perturbations, by gradient steps in a ball that shrinks and grows; L-infinity."""

from collections.abc import Sequence

import eagerpy as ep
from foolbox.attacks.fast_minimum_norm import LInfFMNAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest
from creditflow.attacks.losses import margins
from creditflow.attacks.methods.settings.fmn_linf import Settings


class _Overshooting(LInfFMNAttack):
    """foolbox's attack in a ball that is larger by a thousandth; see `fmn_l2`."""

    def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: ep.Tensor) -> ep.Tensor:
        return super().project(x, x0, 1.001 * epsilon)


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Lowers the label's logit minus the largest other one."""
    attack = _Overshooting(steps=settings.steps, max_stepsize=settings.first_step, gamma=settings.gamma)
    return smallest(attack, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=margins)
