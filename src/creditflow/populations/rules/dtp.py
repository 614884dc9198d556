"""DTP: difference target propagation (Lee et al., 2015), as Meulemans et al. (2020) have it.

Targets come down layer by layer, target_i = g_i(target_{i+1}) + h_i - g_i(h_{i+1}) with g_i(y) = tanh(Q_i y + c_i). Feedback learns to
reconstruct: with x = h_i + sigma eps, the loss is mean (g_i(f_{i+1}(x)) - x)^2 / max(sigma, 0.02)^2, each layer by itself.
"""

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters, Pass, tanh, tanh_backward, tanh_change
from creditflow.populations.rule import Batch
from creditflow.populations.rules._targets import (
    Clean,
    Settings,
    activations,
    corruptions,
    hidden_layers,
    target_rule,
    unless_tanh,
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


def signals(network: Network, feedback: Parameters, found: Pass) -> dict[int, Tensor]:
    """Returns g_i(h_{i+1}) = tanh(Q_i h_{i+1} + c_i) (B, n_i) of each hidden layer."""
    return {layer: back(feedback, layer, activations(found, layer + 1)) for layer in hidden_layers(network)}


def back(feedback: Parameters, layer: int, y: Tensor) -> Tensor:
    """Returns g_i(y) (B, n_i)."""
    return tanh(y @ feedback[f"q{layer}"].T + feedback[f"c{layer}"])


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns the differences of the targets."""
    down = clean.down or signals(clean.network, clean.feedback, clean.found)
    result, difference = {}, output
    for layer in reversed(hidden_layers(clean.network)):
        difference = tanh_change(down[layer], difference @ clean.feedback[f"q{layer}"].T)
        result[layer] = difference
    return result


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the reconstruction losses by Q_i and c_i."""
    network, parameters = clean.network, clean.parameters
    directions: Parameters = {}
    for layer, noise in enumerate(corruptions(batch, settings.sigma), 1):
        x = activations(clean.found, layer) + noise
        y = x @ parameters[f"weight{layer + 1}"].T + parameters[f"bias{layer + 1}"]
        if layer + 1 < network.n_layers:
            y = network.activate.value(y)
        g = back(clean.feedback, layer, y)
        error = tanh_backward((g - x) * (2 / (max(settings.sigma, _LEAST_SIGMA) ** 2 * x.numel())), g)
        directions |= {f"q{layer}": error.T @ y, f"c{layer}": error.sum(0)}
    return directions


RULE = target_rule(
    "DTP",
    Settings,
    init,
    targets,
    learn,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
