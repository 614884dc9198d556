"""Losses of logits (..., B, C) and targets (one-hot labels, or shares), for each example, with derivatives in closed
form."""

from typing import NamedTuple, Protocol

from torch import Tensor


class OfLogits(Protocol):
    """A function of logits and targets, both (..., B, C)."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns a tensor (..., B) or (..., B, C)."""


class Loss(NamedTuple):
    """A loss of each example.

    Attributes:
        value: the losses (..., B) of the examples.
        slope: the derivative of these losses with respect to the logits (..., B, C); it is not divided by B.
    """

    value: OfLogits
    slope: OfLogits


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
    """Returns the index of the largest logit (..., 1), the logits less the largest, and the sum of the others'
    exponentials (..., 1).

    In float32, 1 plus that sum rounds to 1 once the largest logit leads by 17. A loss of 1e-9 needs the sum by itself.
    """
    largest = logits.argmax(-1, keepdim=True)
    shifted = logits - logits.gather(-1, largest)
    return largest, shifted, shifted.exp().scatter(-1, largest, 0).sum(-1, keepdim=True)


#: `mse` is the squared error of the outputs themselves, summed over classes, the SAL paper's example of an F.
#: `mse_softmax` is the same of the probabilities (as in PEPITA's code). `cross_entropy` is computed from logits.
LOSSES = {
    "mse": Loss(
        lambda logits, targets: (logits - targets).square().sum(-1), lambda logits, targets: 2 * (logits - targets)
    ),
    "mse_softmax": Loss(_squared, _squared_slope),
    "cross_entropy": Loss(_cross_entropy, _cross_entropy_slope),
}
