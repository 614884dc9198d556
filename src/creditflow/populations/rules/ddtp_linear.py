"""DDTP-linear: direct difference target propagation with linear feedback from the output to each hidden layer
(Meulemans et al., 2020).

Targets are h_i + Q_i (target_L - h_L). Q_i learns by the difference reconstruction loss, mean (Q_i (y - h_L) - sigma
eps)^2 / sigma^2, where y is the network's output for h_i + sigma eps. Feedback has no biases, as they would cancel. In
the authors' code the last hidden layer has no forward bias; the setting `last_hidden_bias` says whether it has one
here.
"""

from typing import Any

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Clean,
    TargetMethod,
    corruptions,
    hidden_layers,
    hidden_widths,
    pushed,
    without_last_hidden_bias,
    xavier_normal,
)
from creditflow.populations.rules.settings._targets import TargetSettings


def init(network: Network, settings: Any, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, C), Xavier normal."""
    return {
        f"q{layer}": xavier_normal((network.widths[layer], network.widths[-1]), generator)
        for layer in hidden_layers(network)
    }


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns target minus activation (B, n_l) by layer."""
    return {layer: output @ clean.feedback[f"q{layer}"].T for layer in hidden_layers(clean.network)}


def learn(settings: TargetSettings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses with respect to Q_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, moved) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        error = (moved @ clean.feedback[f"q{layer}"].T - noise) * (2 / (settings.sigma**2 * noise.numel()))
        directions[f"q{layer}"] = error.T @ moved
    return directions


METHOD = TargetMethod(targets=targets, learn=learn, finish=without_last_hidden_bias)

RULE = UpdateRule(
    title="DDTP-linear",
    order=150,
    color="#D55E00",
    marker="^",
    init=init,
    step=METHOD.step,
    feedback_step=METHOD.feedback_step,
    noise_widths=hidden_widths,
    step_takes_noise=True,
    convolutional=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
