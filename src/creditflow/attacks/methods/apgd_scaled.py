"""APGD on the cross-entropy of logits that are brought to a fixed standard deviation; L-infinity.

Large logits saturate the softmax, so that the gradient of the cross-entropy vanishes in float32 and a network seems
robust. Here any scale of the logits gives the same images.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.losses import at_own_scale, scaled_cross_entropies
from creditflow.attacks.methods._apgd import APGD
from creditflow.attacks.methods.settings.apgd_scaled import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


class _AtOwnScale(nn.Module):
    """A model whose logits are brought to a fixed standard deviation over the classes; its predictions stay."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return at_own_scale(self.model(x))


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label; the gradient takes the divisor of the logits for a constant."""
    model, device = _AtOwnScale(problem.model), problem.images.device

    def make(epsilon: float, seed: int) -> APGD:
        return APGD(model, settings.steps, "Linf", settings.restarts, epsilon, seed, "ce", device=device)

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(
    norm="linf",
    uses_gradient=True,
    propose=propose,
    loss=scaled_cross_entropies,
    scale_free=True,
    converges=True,
)
