"""The state of a population while it trains."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters


@dataclass(frozen=True)
class Member:
    """What distinguishes one network of a population from the others."""

    seed: int
    learning_rate: float


@dataclass
class Population:
    """P networks while they train. Every tensor has a leading dimension P. To save a population is to save its run.

    Attributes:
        parameters, feedback: the present parameters and feedback state.
        best, best_feedback: the same at each member's best epoch so far.
        best_score, best_epoch: (P,) that epoch and its score; 0 and -1 before the first epoch.
        diverged: (P,) the step (1, 2, ... over all epochs) at which a member's loss was no longer finite; 0 if it
            always was.
        norm: (P,) Euclidean norm of all parameters after the last epoch that left them finite.
        stopped: (P,) the epoch after which patience ran out; 0 if it did not.
        history: for each member a list with a row per epoch. A member that diverged or stopped gets no more rows.
        epoch: number of epochs so far.
    """

    members: list[Member]
    network: Network
    parameters: Parameters
    feedback: Parameters
    best: Parameters
    best_feedback: Parameters
    best_score: Tensor
    best_epoch: Tensor
    diverged: Tensor
    stopped: Tensor
    norm: Tensor
    history: list[list[dict[str, float]]] = field(default_factory=list)
    epoch: int = 0

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps of the population."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("members", "network")
        }


def norms(parameters: Parameters) -> Tensor:
    """Returns the Euclidean norm (P,) of each member's parameters, float64 on the CPU.

    It is infinite or NaN for members whose parameters are not finite.
    """
    squares = [value.flatten(1).double().square().sum(1) for value in parameters.values()]
    return torch.stack(squares).sum(0).sqrt().cpu()
