"""What an update rule is: pure functions for ONE network, which `torch.func.vmap` turns into those of a population."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from creditflow.core import plugins
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters


class Batch(NamedTuple):
    """Images (B, n_0), one-hot labels (B, C), a dropout mask (B, n_l) of each hidden layer (none without dropout), and random numbers of
    the widths that the rule asks for."""

    images: Tensor
    targets: Tensor
    masks: tuple[Tensor, ...] = ()
    noise: tuple[Tensor, ...] = ()


class Update(NamedTuple):
    """What a step proposes: for each parameter, and each plastic tensor of the feedback state, the direction that the optimiser descends,
    as if it were the gradient of the mean loss over the batch; and the logits (B, C) from before."""

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
        feedback_step: the same arguments -> directions of the feedback state alone: for epochs that train nothing else, or, with
            `follows`, after each step.
        follows: whether a feedback step, which then gets noise and no images, follows each step, and `initial_steps` the first.
        initial_steps: settings -> feedback steps before training, for rules whose feedback step follows.
        noise: (network, settings) -> widths of the noise in `Batch.noise`: uniform where the feedback step follows, else N(0, 1).
        noisy_step: whether `step` needs that noise, too.
        measure: (network, settings, parameters, feedback) -> numbers that each epoch's history keeps.
        warnings: (network, settings) -> what a user should know before such a network is trained.
        convolutional, dropout: whether it knows convolutional layers, and masks.
        connected, plastic: pathways that there are, and that learn, written out in the call: "uu" up, "dd" down, "ud" up to down, "du"
            down to up.
    """

    name: str
    settings: type[Any]
    step: Callable[[Network, Loss, Any, Parameters, Parameters, Batch], Update]
    init: Callable[[Network, Any, torch.Generator], Parameters] = lambda network, settings, generator: {}
    feedback_step: Callable[[Network, Loss, Any, Parameters, Parameters, Batch], Parameters] | None = None
    follows: bool = False
    initial_steps: Callable[[Any], int] = lambda settings: 0
    noise: Callable[[Network, Any], tuple[int, ...]] = lambda network, settings: ()
    noisy_step: bool = False
    measure: Callable[[Network, Any, Parameters, Parameters], dict[str, Tensor]] | None = None
    warnings: Callable[[Network, Any], list[str]] = lambda network, settings: []
    convolutional: bool = False
    dropout: bool = False
    connected: tuple[str, ...] = ()
    plastic: tuple[str, ...] = ()


def get_update_rule(name: str) -> UpdateRule:
    """Returns the rule with this id. Raises UserError if there is none."""
    rule: UpdateRule = plugins.load("update_rule", name).RULE
    return rule
