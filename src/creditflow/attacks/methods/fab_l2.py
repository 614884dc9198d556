"""FAB (Croce and Hein, 2020): smallest perturbations, by projections on the linearised boundary; L2."""

from collections.abc import Sequence

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods.fab import propose_in
from creditflow.attacks.methods.settings.fab_l2 import Settings


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Runs once for each epsilon, as the library stops to search for an image once it has anything within epsilon."""
    return propose_in("l2", problem, epsilons, settings)


ATTACK = Attack(norm="l2", uses_gradient=True, propose=propose, loss=None)
