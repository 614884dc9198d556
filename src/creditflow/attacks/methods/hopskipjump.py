"""HopSkipJump (Chen et al., 2020): estimates the gradient's direction at the decision boundary from decisions; L2."""

from collections.abc import Sequence
from typing import Any

import eagerpy as ep
import foolbox

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest_l2
from creditflow.attacks.methods.settings.hopskipjump import Settings


class _PerImage(foolbox.attacks.HopSkipJumpAttack):
    """foolbox's attack with a direction of unit length for each image.

    foolbox divides by one norm over the whole batch, so that an image's step shrinks with the number of its neighbours.
    """

    def approximate_gradients(self, *arguments: Any) -> Any:
        direction = super().approximate_gradients(*arguments)
        length = ep.maximum(ep.norms.l2(direction.flatten(1), axis=1), 1e-12)
        return direction / length.reshape((-1,) + (1,) * (direction.ndim - 1))


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs only the model's decisions."""
    attack = _PerImage(
        steps=settings.steps,
        initial_gradient_eval_steps=settings.initial_evaluations,
        max_gradient_eval_steps=settings.max_evaluations,
        constraint="l2",
    )
    return smallest_l2(attack, problem, epsilons)


ATTACK = Attack(norm="l2", uses_gradient=False, propose=propose, uses_pool=True, multi_label=True)
