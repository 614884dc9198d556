"""Square Attack (Andriushchenko et al., 2020): random search over square patches, by scores alone; L-infinity."""

from collections.abc import Sequence

from pyautoattack.square import SquareAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods.settings.square import Settings
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs the model's scores and no gradient."""

    def make(epsilon: float, seed: int) -> SquareAttack:
        return SquareAttack(
            problem.model,
            "Linf",
            settings.queries,
            epsilon,
            settings.initial_share,
            settings.restarts,
            seed,
            device=problem.images.device,
        )

    return fixed_epsilon(make, problem, epsilons)


ATTACK = Attack(norm="linf", uses_gradient=False, propose=propose)
