"""Losses of logits (..., B, C) and targets, labels one-hot or as shares, example by example, with their derivatives in closed form."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """A loss of each example (..., B), and its derivative by the logits (..., B, C), not divided by B."""

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def _squared(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.softmax(-1) - targets).square().sum(-1)


def _squared_slope(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.softmax(-1)
    error = p * (p - targets)
    return 2 * (error - p * error.sum(-1, keepdim=True))


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    _, shifted, beside = _beside_the_largest(logits)
    return -((shifted - beside.log1p()) * targets).sum(-1)


def _cross_entropy_slope(logits: Tensor, targets: Tensor) -> Tensor:
    largest, shifted, beside = _beside_the_largest(logits)
    p = shifted.exp() / (1 + beside)
    return p * (1 - targets) - targets * (1 - p).scatter(-1, largest, beside / (1 + beside))


def _beside_the_largest(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the largest logit's place (..., 1), logits less it, and the sum of the others' exponentials (..., 1).

    Beside 1 that sum is rounded away in float32 once the largest leads by 17; a loss of 1e-9 needs it by itself.
    """
    largest = logits.argmax(-1, keepdim=True)
    shifted = logits - logits.gather(-1, largest)
    return largest, shifted, shifted.exp().scatter(-1, largest, 0).sum(-1, keepdim=True)


#: `mse`: the squared error of the outputs themselves, summed over classes (SAL's F); `mse_softmax`: that of probabilities (PEPITA's code);
#: `cross_entropy`: of logits.
LOSSES = {
    "mse": Loss(
        lambda logits, targets: (logits - targets).square().sum(-1), lambda logits, targets: 2 * (logits - targets)
    ),
    "mse_softmax": Loss(_squared, _squared_slope),
    "cross_entropy": Loss(_cross_entropy, _cross_entropy_slope),
}
