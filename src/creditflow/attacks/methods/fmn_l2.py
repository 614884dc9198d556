"""FMN (Pintor et al., 2021): smallest perturbations, by gradient steps in a ball that shrinks and grows; L2."""

from collections.abc import Sequence

import eagerpy as ep
from foolbox.attacks.fast_minimum_norm import L2FMNAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest
from creditflow.attacks.losses import margins
from creditflow.attacks.methods.settings.fmn_l2 import Settings


class _Projecting(L2FMNAttack):
    """foolbox's attack with the projection of the paper.

    That of foolbox 3.3.4 multiplies by 1, so that the ball bounds nothing and the perturbation never shrinks. The ball
    is larger by a thousandth: the paper's touches the linearised boundary, where rounding may keep an image from ever
    crossing it.
    """

    def project(self, x: ep.Tensor, x0: ep.Tensor, epsilon: ep.Tensor) -> ep.Tensor:
        delta = x - x0
        length = ep.maximum(ep.norms.l2(delta.flatten(1), axis=1), 1e-12)
        return x0 + delta * ep.minimum(1, 1.001 * epsilon / length).reshape((-1,) + (1,) * (x.ndim - 1))


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Lowers the label's logit minus the largest other one."""
    attack = _Projecting(steps=settings.steps, max_stepsize=settings.first_step, gamma=settings.gamma)
    return smallest(attack, problem, epsilons)


ATTACK = Attack(norm="l2", uses_gradient=True, propose=propose, loss=margins)
