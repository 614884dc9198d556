"""DDTP-control: DDTP-linear's targets with feedback that learns to reconstruct the activation itself.

It is the control experiment of Meulemans et al. (2020). The loss is mean (Q_i y + c_i - h_i - sigma eps)^2, without a
difference from the clean pass and without 1 / sigma^2. The comparison with DDTP-linear shows what the difference
reconstruction loss is good for.
"""

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Clean,
    TargetMethod,
    activations,
    corruptions,
    hidden_layers,
    hidden_widths,
    pushed,
)
from creditflow.populations.rules.ddtp_linear import init as init_weights
from creditflow.populations.rules.ddtp_linear import targets
from creditflow.populations.rules.settings.ddtp_control import Settings


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, C), Xavier normal, and sets c_i = 0; convolutional layers have no c_i."""
    dense = hidden_layers(network)[len(network.convolutions) :]
    biases: dict[str, Tensor] = {
        f"c{layer}": torch.zeros(network.widths[layer], dtype=torch.float64) for layer in dense
    }
    return init_weights(network, settings, generator) | biases


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the reconstruction losses with respect to Q_i and c_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, moved) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        y = clean.activity.logits + moved
        guess = y @ clean.feedback[f"q{layer}"].T
        if f"c{layer}" in clean.feedback:
            guess = guess + clean.feedback[f"c{layer}"]
        error = (guess - activations(clean.activity, layer) - noise) * (2 / noise.numel())
        directions[f"q{layer}"] = error.T @ y
        if f"c{layer}" in clean.feedback:
            directions[f"c{layer}"] = error.sum(0)
    return directions


METHOD = TargetMethod(targets=targets, learn=learn)

RULE = UpdateRule(
    title="DDTP-control",
    order=170,
    color="#999999",
    marker="h",
    init=init,
    step=METHOD.step,
    feedback_step=METHOD.feedback_step,
    noise_widths=hidden_widths,
    step_takes_noise=True,
    convolutional=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
