"""DDTP-linear: direct difference target propagation with linear feedback from the output to each hidden layer (Meulemans et al., 2020).

Targets are h_i + Q_i (target_L - h_L). Q_i learns by the difference reconstruction loss, mean (Q_i (y - h_L) - sigma eps)^2 / sigma^2,
with y what the network makes of h_i + sigma eps. Biases would cancel. In the authors' code the last hidden layer has no forward
bias; `last_hidden_bias` says whether it has one here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch
from creditflow.populations.rules import _targets
from creditflow.populations.rules._targets import (
    Clean,
    corruptions,
    hidden_layers,
    pushed,
    target_rule,
    without_last_hidden_bias,
    xavier_normal,
)


@dataclass(frozen=True)
class Settings(_targets.Settings):
    """last_hidden_bias: whether the last hidden layer's forward bias learns."""

    last_hidden_bias: bool = False


def init(network: Network, settings: Any, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, C), Xavier normal."""
    return {
        f"q{layer}": xavier_normal((network.widths[layer], network.widths[-1]), generator)
        for layer in hidden_layers(network)
    }


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns the differences of the targets."""
    return {layer: output @ clean.feedback[f"q{layer}"].T for layer in hidden_layers(clean.network)}


def learn(settings: _targets.Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses by Q_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, moved) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        error = (moved @ clean.feedback[f"q{layer}"].T - noise) * (2 / (settings.sigma**2 * noise.numel()))
        directions[f"q{layer}"] = error.T @ moved
    return directions


RULE = target_rule(
    "DDTP-linear",
    Settings,
    init,
    targets,
    learn,
    finish=without_last_hidden_bias,
    convolutional=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
