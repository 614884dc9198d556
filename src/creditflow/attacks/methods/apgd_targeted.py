"""APGD on the targeted difference of logits ratio (Croce and Hein, 2020); L-infinity.

It aims at one target class after the other.
"""

from collections.abc import Sequence

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.losses import targeted_ratio
from creditflow.attacks.methods._apgd import TargetedAPGD
from creditflow.attacks.methods.settings.apgd_targeted import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon, need_classes


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2). Raises UserError with fewer than four classes."""
    need_classes(problem, 4, "apgd_targeted")
    targets = min(settings.targets, problem.n_classes - 1)

    def make(epsilon: float, seed: int) -> TargetedAPGD:
        return TargetedAPGD(
            problem.model,
            settings.steps,
            "Linf",
            settings.restarts,
            epsilon,
            seed,
            n_target_classes=targets,
            device=problem.images.device,
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=targeted_ratio, scale_free=True, converges=True)
