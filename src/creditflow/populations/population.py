"""What a population is while it trains."""

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters


@dataclass(frozen=True)
class Member:
    """What tells one network of a population from the others."""

    seed: int
    learning_rate: float


@dataclass
class Population:
    """Networks while they train, so that saving it is saving the run; every tensor has a leading dimension P.

    Attributes:
        parameters, feedback: at present.
        best, best_feedback: the same at each member's best epoch so far.
        best_score, best_epoch: (P,) what they were chosen by; -1 and 0 before the first epoch.
        diverged: (P,) the step (1, 2, ... over all epochs) at which a member's loss was no longer finite; 0 if it always was.
        norm: (P,) Euclidean norm of all parameters after the last epoch that left them finite.
        stopped: (P,) the epoch after which patience ran out; 0 if it did not.
        history: of each member, a row per epoch; a diverged member has none from then on.
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
        """Returns what a checkpoint keeps of it."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("members", "network")
        }


def norms(parameters: Parameters) -> Tensor:
    """Returns the Euclidean norm (P,) of each member's parameters, float64 on the CPU; infinite or NaN where they are not finite."""
    return torch.stack([value.flatten(1).double().square().sum(1) for value in parameters.values()]).sum(0).sqrt().cpu()
