"""Square Attack (Andriushchenko et al., 2020): random search over square-shaped changes, by scores alone; L-infinity."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyautoattack.square import SquareAttack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.pyautoattack_adapter import fixed_epsilon


@dataclass(frozen=True)
class Settings:
    """Queries per image and restart, restarts, and the initial share of pixels that change; AutoAttack's own are 5000, 1, 0.8."""

    queries: int = 5000
    restarts: int = 1
    initial_share: float = 0.8

    def __post_init__(self) -> None:
        if min(self.queries, self.restarts) < 1:
            raise ValueError("queries and restarts must be at least 1")
        if not 0 < self.initial_share <= 1:
            raise ValueError(f"initial_share must be in (0, 1], not {self.initial_share}")


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs the model's scores, no gradient."""

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


ATTACK = Attack(norm="linf", uses_gradient=False, settings=Settings, propose=propose)
