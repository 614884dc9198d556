"""TPGD (Zhang et al., 2019, the inner step of TRADES): PGD on KL(p(x) || p(x')), which needs no label; L-infinity."""

from collections.abc import Callable, Sequence

import eagerpy as ep
import foolbox
from torch import Tensor
from torch.nn import functional as F

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import fixed_epsilon
from creditflow.attacks.methods.settings.tpgd import Settings


class _Divergence(foolbox.attacks.LinfPGD):
    """foolbox's PGD with another loss and start."""

    def __init__(self, settings: Settings, clean: Tensor) -> None:
        super().__init__(steps=settings.steps, rel_stepsize=settings.relative_step, random_start=True)
        self._noise, self._clean = settings.start_noise, clean

    def get_loss_fn(self, model: foolbox.Model, labels: ep.Tensor) -> Callable[[ep.Tensor], ep.Tensor]:
        def loss(inputs: ep.Tensor) -> ep.Tensor:
            return ep.astensor(
                F.kl_div(model(inputs).raw.log_softmax(1), self._clean, reduction="sum", log_target=True)
            )

        return loss

    def get_random_start(self, x0: ep.Tensor, epsilon: float) -> ep.Tensor:
        return x0 + ep.clip(self._noise * ep.normal(x0, x0.shape), -epsilon, epsilon)


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the divergence from the clean prediction. Labels play no part."""
    return fixed_epsilon(_Divergence(settings, problem.logits.log_softmax(1)), problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=None)
