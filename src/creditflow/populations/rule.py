"""What an update rule is: pure functions for ONE network, which `torch.func.vmap` turns into those of a population."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from creditflow import plugins
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters


class Batch(NamedTuple):
    """Images (B, n_0), one-hot labels (B, C) and a dropout mask (B, n_l) of each hidden layer (none without dropout)."""

    images: Tensor
    targets: Tensor
    masks: tuple[Tensor, ...] = ()


class Update(NamedTuple):
    """What a step proposes: for each parameter the direction that the optimiser descends, as if it were the gradient of the mean loss
    over the batch; and the logits (B, C) from before."""

    directions: Parameters
    logits: Tensor


@dataclass(frozen=True)
class UpdateRule:
    """An update rule (a file in `populations/rules`).

    Attributes:
        name: as papers write it.
        settings: dataclass of its own hyper-parameters.
        init: (network, settings, generator) -> the feedback state of one network, in float64 on the CPU.
        step: (network, loss, settings, parameters, feedback, batch) -> update.
    """

    name: str
    settings: type[Any]
    step: Callable[[Network, Loss, Any, Parameters, Parameters, Batch], Update]
    init: Callable[[Network, Any, torch.Generator], Parameters] = field(default=lambda network, settings, generator: {})


def get_update_rule(name: str) -> UpdateRule:
    """Returns the rule with this id. Raises UserError if there is none."""
    rule: UpdateRule = plugins.load("update_rule", name).RULE
    return rule
