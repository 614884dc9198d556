"""DDTP-control: DDTP-linear's targets with feedback that learns to reconstruct the activation itself (Meulemans et al., 2020).

The loss is mean (Q_i y + c_i - h_i - sigma eps)^2: no difference from the clean pass, no 1 / sigma^2. It shows what the difference
reconstruction loss is good for.
"""

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch
from creditflow.populations.rules._targets import (
    Clean,
    Settings,
    activations,
    corruptions,
    hidden_layers,
    pushed,
    target_rule,
)
from creditflow.populations.rules.ddtp_linear import init as init_weights
from creditflow.populations.rules.ddtp_linear import targets


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, C), Xavier normal; c_i = 0, which convolutional layers do without."""
    dense = hidden_layers(network)[len(network.convolutions) :]
    biases: dict[str, Tensor] = {
        f"c{layer}": torch.zeros(network.widths[layer], dtype=torch.float64) for layer in dense
    }
    return init_weights(network, settings, generator) | biases


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the reconstruction losses by Q_i and c_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, moved) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        y = clean.found.logits + moved
        guess = y @ clean.feedback[f"q{layer}"].T
        if f"c{layer}" in clean.feedback:
            guess = guess + clean.feedback[f"c{layer}"]
        error = (guess - activations(clean.found, layer) - noise) * (2 / noise.numel())
        directions[f"q{layer}"] = error.T @ y
        if f"c{layer}" in clean.feedback:
            directions[f"c{layer}"] = error.sum(0)
    return directions


RULE = target_rule(
    "DDTP-control",
    Settings,
    init,
    targets,
    learn,
    convolutional=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
