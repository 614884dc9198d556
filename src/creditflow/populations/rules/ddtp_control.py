"""DDTP-control: DDTP-linear's targets with feedback that learns to reconstruct the activation itself (Meulemans et al., 2020).

The loss is mean (Q_i y + c_i - h_i - sigma eps)^2: no difference from the clean pass, no 1 / sigma^2. It shows what the difference
reconstruction loss is good for.
"""

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import Settings, activations, corruption, hidden_layers, joint_step, needed_noise, pushed
from creditflow.populations.rules.ddtp_linear import init as init_weights
from creditflow.populations.rules.ddtp_linear import targets


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, C), Xavier normal; c_i = 0."""
    biases: dict[str, Tensor] = {f"c{layer}": torch.zeros(network.widths[layer], dtype=torch.float64) for layer in hidden_layers(network)}
    return init_weights(network, settings, generator) | biases


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns the gradients of the reconstruction losses by Q_i and c_i."""
    found = forward(network, parameters, batch.images)
    directions: Parameters = {}
    for layer in hidden_layers(network):
        noise = corruption(batch, layer, settings.sigma)
        y = found.logits + pushed(network, parameters, found, layer, noise)
        guess = y @ feedback[f"q{layer}"].T + feedback[f"c{layer}"]
        error = 2 / noise.numel() * (guess - activations(found, layer) - noise)
        directions |= {f"q{layer}": error.T @ y, f"c{layer}": error.sum(0)}
    return directions


RULE = UpdateRule(
    name="DDTP-control",
    settings=Settings,
    init=init,
    step=joint_step(targets, feedback_step),
    feedback_step=feedback_step,
    noise=needed_noise,
    noisy_step=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
