"""Losses of logits (..., B, C) and one-hot targets, mean over the batch, with their derivatives in closed form."""

from collections.abc import Callable
from typing import NamedTuple

import torch
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
    return -(logits.log_softmax(-1) * targets).sum(-1)


#: `mse`: the squared error of the outputs themselves, summed over classes (SAL's F); `mse_softmax`: that of probabilities (PEPITA's code);
#: `cross_entropy`: of logits.
LOSSES = {
    "mse": Loss(lambda logits, targets: (logits - targets).square().sum(-1), lambda logits, targets: 2 * (logits - targets)),
    "mse_softmax": Loss(_squared, _squared_slope),
    "cross_entropy": Loss(_cross_entropy, lambda logits, targets: torch.softmax(logits, -1) - targets),
}
