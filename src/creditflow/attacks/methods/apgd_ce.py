"""APGD on the cross-entropy (Croce and Hein, 2020): PGD with momentum and an adaptive step size; L-infinity."""

from collections.abc import Sequence

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._apgd import APGD
from creditflow.attacks.methods.settings.apgd_ce import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends the cross-entropy of the true label."""

    def make(epsilon: float, seed: int) -> APGD:
        return APGD(
            problem.model, settings.steps, "Linf", settings.restarts, epsilon, seed, "ce", device=problem.images.device
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, converges=True)
