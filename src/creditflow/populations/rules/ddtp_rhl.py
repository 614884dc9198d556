"""DDTP-RHL: direct feedback through a random hidden layer that all layers share (Meulemans et al., 2020).

With h(y) = tanh(R y + r), R and r fixed, g_i(y) = tanh(Q_i h(y) + c_i) for all hidden layers but the last, whose g is tanh(Q y + c) of the
output itself. Targets and loss are differences as in DTPDRL.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward, tanh_change, uniform
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules import _targets
from creditflow.populations.rules._targets import (
    Targets,
    corruption,
    hidden_layers,
    joint_step,
    needed_noise,
    pushed,
    xavier_normal,
)


@dataclass(frozen=True)
class Settings(_targets.Settings):
    """width: units of the random hidden layer."""

    width: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise ValueError(f"width must be at least 1, not {self.width}")


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws R (width, C) and r from U(+-1 / sqrt(C)), torch.nn.Linear's own; Q_i Xavier normal, c_i = 0."""
    n_classes = network.widths[-1]
    bound = 1 / math.sqrt(n_classes)
    state = {"r": uniform((settings.width, n_classes), bound, generator), "r_bias": uniform((settings.width,), bound, generator)}
    for layer in hidden_layers(network):
        n, n_in = network.widths[layer], n_classes if layer == network.n_layers - 1 else settings.width
        state |= {f"q{layer}": xavier_normal((n, n_in), generator), f"c{layer}": torch.zeros(n, dtype=torch.float64)}
    return state


def _sources(network: Network, feedback: Parameters, logits: Tensor, moved: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Returns what g_i starts from (B, width) at the clean logits (B, C), and by how much it moves with them."""
    if layer == network.n_layers - 1:
        return logits, moved
    z = logits @ feedback["r"].T + feedback["r_bias"]
    return z.tanh(), tanh_change(z, moved @ feedback["r"].T)


def targets(network: Network, feedback: Parameters) -> Targets:
    """Returns the differences of the targets."""

    def differences(found: Pass, output: Tensor) -> dict[int, Tensor]:
        result = {}
        for layer in hidden_layers(network):
            clean, change = _sources(network, feedback, found.logits, output, layer)
            z = clean @ feedback[f"q{layer}"].T + feedback[f"c{layer}"]
            result[layer] = tanh_change(z, change @ feedback[f"q{layer}"].T)
        return result

    return differences


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns the gradients of the difference reconstruction losses by Q_i and c_i."""
    found = forward(network, parameters, batch.images)
    directions: Parameters = {}
    for layer in hidden_layers(network):
        noise = corruption(batch, layer, settings.sigma)
        clean, moved = _sources(network, feedback, found.logits, pushed(network, parameters, found, layer, noise), layer)
        z = clean @ feedback[f"q{layer}"].T + feedback[f"c{layer}"]
        g, change = z.tanh(), tanh_change(z, moved @ feedback[f"q{layer}"].T)
        error = 2 / (settings.sigma**2 * noise.numel()) * (change - noise)
        through, less = error * (1 - (g + change).square()), -error * change * (2 * g + change)
        directions |= {f"q{layer}": through.T @ moved + less.T @ clean, f"c{layer}": less.sum(0)}
    return directions


RULE = UpdateRule(
    name="DDTP-RHL",
    settings=Settings,
    init=init,
    step=joint_step(targets, feedback_step),
    feedback_step=feedback_step,
    noise=needed_noise,
    noisy_step=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
