"""DTP: difference target propagation (Lee et al., 2015), as Meulemans et al. (2020) have it.

Targets come down layer by layer, target_i = g_i(target_{i+1}) + h_i - g_i(h_{i+1}) with g_i(y) = tanh(Q_i y + c_i). Feedback learns to
reconstruct: with x = h_i + sigma eps, the loss is mean (g_i(f_{i+1}(x)) - x)^2 / max(sigma, 0.02)^2, each layer by itself.
"""

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward, tanh_change
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Settings,
    Targets,
    activations,
    corruption,
    hidden_layers,
    joint_step,
    needed_noise,
    xavier_normal,
)

_LEAST_SIGMA = 0.02


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, n_{i+1}), Xavier normal; c_i = 0."""
    state: dict[str, Tensor] = {}
    for layer in hidden_layers(network):
        n, above = network.widths[layer], network.widths[layer + 1]
        state |= {f"q{layer}": xavier_normal((n, above), generator), f"c{layer}": torch.zeros(n, dtype=torch.float64)}
    return state


def back(feedback: Parameters, layer: int, y: Tensor) -> Tensor:
    """Returns Q_i y + c_i (B, n_i), of which g_i is the tanh."""
    return y @ feedback[f"q{layer}"].T + feedback[f"c{layer}"]


def targets(network: Network, feedback: Parameters) -> Targets:
    """Returns the differences of the targets."""

    def differences(found: Pass, output: Tensor) -> dict[int, Tensor]:
        result, difference = {}, output
        for layer in reversed(hidden_layers(network)):
            z = back(feedback, layer, activations(found, layer + 1))
            difference = tanh_change(z, difference @ feedback[f"q{layer}"].T)
            result[layer] = difference
        return result

    return differences


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns the gradients of the reconstruction losses by Q_i and c_i."""
    found = forward(network, parameters, batch.images)
    directions: Parameters = {}
    for layer in hidden_layers(network):
        x = activations(found, layer) + corruption(batch, layer, settings.sigma)
        y = x @ parameters[f"weight{layer + 1}"].T + parameters[f"bias{layer + 1}"]
        if layer + 1 < network.n_layers:
            y = network.activate.value(y)
        g = back(feedback, layer, y).tanh()
        error = 2 / (max(settings.sigma, _LEAST_SIGMA) ** 2 * x.numel()) * (g - x) * (1 - g.square())
        directions |= {f"q{layer}": error.T @ y, f"c{layer}": error.sum(0)}
    return directions


RULE = UpdateRule(
    name="DTP",
    settings=Settings,
    init=init,
    step=joint_step(targets, feedback_step),
    feedback_step=feedback_step,
    noise=needed_noise,
    noisy_step=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
