"""PGD on the expected gradient over draws of random feedback weights (EOT: Athalye et al., 2018); L-infinity.

A brSF model's feedback weights are one draw of many; an attacker through them may average. Outputs do not depend on the
draw, so the expected gradient of any loss is that of the views' mean output. Where nothing is random it equals PGD.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods import pgd


@dataclass(frozen=True)
class Settings(pgd.Settings):
    """As PGD's, and the number of draws, made once per batch and epsilon list; AutoAttack averages over 20 at each step."""

    draws: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, not {self.draws}")


class Mean(nn.Module):
    """The mean output of views that compute the same: its backward is the mean of theirs."""

    def __init__(self, views: Sequence[nn.Module]) -> None:
        super().__init__()
        self.views = views

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([view(x) for view in self.views]).mean(0)


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label along the mean of the views' gradients."""
    views = problem.views(settings.draws) if problem.views else [problem.model]
    return pgd.propose(replace(problem, model=Mean(views).eval()), epsilons, settings)


ATTACK = Attack(norm="linf", uses_gradient=True, settings=Settings, propose=propose)
