"""PGD on the expected gradient over draws of random feedback weights (EOT: Athalye et al., 2018); L-infinity.

The feedback weights of a brSF model are one draw of many, and an attacker who uses them may average over draws. Outputs
do not depend on the draw. So the expected gradient of any loss is the gradient through the mean output of the views.
Where nothing is random the attack equals PGD.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd
from creditflow.attacks.methods.settings.pgd_eot import Settings


class Mean(nn.Module):
    """The mean output of views that compute the same outputs; its gradient is the mean of their gradients."""

    def __init__(self, views: Sequence[nn.Module]) -> None:
        super().__init__()
        self.views = views

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([view(x) for view in self.views]).mean(0)


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label along the mean of the views' gradients."""
    views = problem.views(settings.draws) if problem.views else [problem.model]
    return pgd.propose(replace(problem, model=Mean(views).eval()), epsilons, settings)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose)
