"""What the rules of the target-propagation family share (Meulemans et al., 2020). Layers are 1 .. L, hidden activations h_1 .. h_{L-1}.

Everything that is propagated is a difference from the clean pass, so that float32 suffices: naive targets h + small would lose what they
differ by (`tanh_change`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward
from creditflow.populations.rule import Batch, Update

#: (clean pass, output difference (B, C)) -> differences of hidden targets, by layer.
Targets = Callable[[Pass, Tensor], dict[int, Tensor]]


def update(network: Network, loss: Loss, parameters: Parameters, batch: Batch, step_size: float, targets: Targets) -> Update:
    """Returns the gradients of the local losses |h_i - target_i|^2, as the authors' code scales them.

    With e = dL/dh_L, which holds 1 / B, the output's target is h_L - step_size e. With t_i = 2 f'(a_i) (h_i - target_i), dW_i is
    t_i^T h_{i-1} / B and db_i the mean of t_i, so that the output layer's direction is 2 step_size / B times the gradient.
    """
    found = forward(network, parameters, batch.images)
    n = len(batch.images)
    output = -step_size * loss.slope(found.logits, batch.targets) / n
    differences = targets(found, output) | {network.n_layers: output}
    directions = {}
    for layer, difference in sorted(differences.items()):
        error = -2 * difference
        if layer < network.n_layers:
            error = network.activate.back(error, found.pre[layer - 1])
        directions[f"weight{layer}"] = error.T @ found.inputs[layer - 1] / n
        directions[f"bias{layer}"] = error.mean(0)
    return Update(directions, found.logits)


def pushed(network: Network, parameters: Parameters, found: Pass, layer: int, difference: Tensor) -> Tensor:
    """Returns by how much the logits move (B, C) when h_layer moves by a difference (B, n_layer)."""
    for above in range(layer + 1, network.n_layers + 1):
        difference = difference @ parameters[f"weight{above}"].T
        if above < network.n_layers:
            difference = network.activate.change(found.pre[above - 1], difference)
    return difference


def hidden_layers(network: Network) -> range:
    """Returns 1 .. L - 1."""
    return range(1, network.n_layers)


def corruption(batch: Batch, layer: int, sigma: float) -> Tensor:
    """Returns the noise sigma epsilon (B, n_layer) of a hidden layer."""
    return sigma * batch.noise[layer - 1]


def activations(found: Pass, layer: int) -> Tensor:
    """Returns h_layer (B, n_layer); the logits for the last."""
    return found.inputs[layer] if layer < len(found.pre) else found.logits


def xavier_normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws N(0, 2 / (n_in + n_out)) (Glorot and Bengio, 2010)."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / sum(shape))


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of a rule with targets.

    Attributes:
        step_size: eta hat, how far the output's target lies from the output, in units of the loss gradient.
        sigma: standard deviation of the noise with which feedback learns.
    """

    step_size: float
    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size must be positive and finite, not {self.step_size}")
        if not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma must be positive and finite, not {self.sigma}: without noise feedback learns nothing")


def joint_step(
    targets: Callable[[Network, Parameters], Targets],
    feedback_step: Callable[[Network, Loss, Any, Parameters, Parameters, Batch], Parameters],
) -> Callable[[Network, Loss, Any, Parameters, Parameters, Batch], Update]:
    """Returns a rule's step: forward weights follow the targets, feedback its own loss, both as they were before the step."""

    def step(network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch) -> Update:
        learned = feedback_step(network, loss, settings, parameters, feedback, batch)
        found = update(network, loss, parameters, batch, settings.step_size, targets(network, feedback))
        return Update(found.directions | learned, found.logits)

    return step


def needed_noise(network: Network, settings: Settings) -> tuple[int, ...]:
    """Returns the widths of the hidden layers, each of which is corrupted."""
    return network.widths[1:-1]
