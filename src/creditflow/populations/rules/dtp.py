"""DTP: difference target propagation (Lee et al., 2015), as Meulemans et al. (2020) have it.

Targets come down layer by layer: target_i = g_i(target_{i+1}) + h_i - g_i(h_{i+1}) with g_i(y) = tanh(Q_i y + c_i). The
feedback of each layer learns by itself to reconstruct x = h_i + sigma eps. Its loss is

    mean (g_i(f_{i+1}(x)) - x)^2 / max(sigma, 0.02)^2.
"""

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters, Pass, tanh, tanh_backward, tanh_change
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Clean,
    TargetMethod,
    activations,
    corruptions,
    hidden_layers,
    hidden_widths,
    unless_tanh,
    xavier_normal,
)
from creditflow.populations.rules.settings._targets import TargetSettings

_LEAST_SIGMA = 0.02


def init(network: Network, settings: TargetSettings, generator: torch.Generator) -> Parameters:
    """Draws Q_i (n_i, n_{i+1}), Xavier normal, and sets c_i = 0."""
    state: dict[str, Tensor] = {}
    for layer in hidden_layers(network):
        n, above = network.widths[layer], network.widths[layer + 1]
        state |= {f"q{layer}": xavier_normal((n, above), generator), f"c{layer}": torch.zeros(n, dtype=torch.float64)}
    return state


def signals(network: Network, feedback: Parameters, activity: Pass) -> dict[int, Tensor]:
    """Returns g_i(h_{i+1}) = tanh(Q_i h_{i+1} + c_i) (B, n_i) of each hidden layer."""
    return {layer: back(feedback, layer, activations(activity, layer + 1)) for layer in hidden_layers(network)}


def back(feedback: Parameters, layer: int, y: Tensor) -> Tensor:
    """Returns g_i(y) (B, n_i)."""
    return tanh(y @ feedback[f"q{layer}"].T + feedback[f"c{layer}"])


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns target minus activation (B, n_l) by layer."""
    down = clean.down or signals(clean.network, clean.feedback, clean.activity)
    result, difference = {}, output
    for layer in reversed(hidden_layers(clean.network)):
        difference = tanh_change(down[layer], difference @ clean.feedback[f"q{layer}"].T)
        result[layer] = difference
    return result


def learn(settings: TargetSettings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the reconstruction losses with respect to Q_i and c_i."""
    network, parameters = clean.network, clean.parameters
    directions: Parameters = {}
    for layer, noise in enumerate(corruptions(batch, settings.sigma), 1):
        x = activations(clean.activity, layer) + noise
        y = x @ parameters[f"weight{layer + 1}"].T + parameters[f"bias{layer + 1}"]
        if layer + 1 < network.n_layers:
            y = network.activate.value(y)
        g = back(clean.feedback, layer, y)
        error = tanh_backward((g - x) * (2 / (max(settings.sigma, _LEAST_SIGMA) ** 2 * x.numel())), g)
        directions |= {f"q{layer}": error.T @ y, f"c{layer}": error.sum(0)}
    return directions


METHOD = TargetMethod(targets=targets, learn=learn)

RULE = UpdateRule(
    title="DTP",
    order=120,
    color="#0072B2",
    marker="s",
    init=init,
    step=METHOD.step,
    feedback_step=METHOD.feedback_step,
    noise_widths=hidden_widths,
    step_takes_noise=True,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
