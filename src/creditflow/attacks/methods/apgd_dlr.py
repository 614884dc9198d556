"""APGD on the difference of logits ratio (Croce and Hein, 2020); L-infinity.

The gradient of this loss does not vanish where the softmax saturates.
"""

from collections.abc import Sequence

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._apgd import APGD
from creditflow.attacks.methods.settings.apgd_dlr import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon, need_classes
from creditflow.data.labels import logits_ratio


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)). Raises UserError with fewer than three classes."""
    need_classes(problem, 3, "apgd_dlr")

    def make(epsilon: float, seed: int) -> APGD:
        return APGD(
            problem.model, settings.steps, "Linf", settings.restarts, epsilon, seed, "dlr", device=problem.images.device
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=logits_ratio, scale_free=True, converges=True)
