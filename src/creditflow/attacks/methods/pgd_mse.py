"""PGD on the squared error of probabilities, the loss that the PEPITA paper trains and attacks with.

The gradient of this loss vanishes where the softmax saturates. For an image that is classified correctly, and whose two
largest logits differ by g, it is about exp(-2 g). In float32 this is exactly 0 from a gap of 52, where that of the
logits' cross-entropy is not yet. Where the gradient is 0 the attack does nothing, which looks like robustness.
"""

from collections.abc import Sequence

from torch import Tensor

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.attacks.methods.settings.pgd_mse import Settings
from creditflow.attacks.precision import in_precision
from creditflow.data.labels import squared_error


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Ascends sum_c (p_c - y_c)^2."""
    with in_precision(problem, settings) as seen:

        def proposal(epsilon: float) -> Tensor:
            step, start = settings.relative_step * epsilon, settings.random_start
            proposed = ascend(seen, epsilon, steps=settings.steps, step=step, random_start=start, lowest=0.0)
            return proposed.to(problem.images.dtype)

        return Candidates([proposal(epsilon) for epsilon in epsilons])


ATTACK = Attack(norm="linf", uses_gradient=True, propose=propose, loss=squared_error, differentiated=in_precision)
