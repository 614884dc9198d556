"""What the rules of the target-propagation family share (Meulemans et al., 2020). Layers are 1 .. L, hidden activations h_1 .. h_{L-1}.

Everything that is propagated is a difference from the clean pass, so that float32 suffices: naive targets h + small would lose what they
differ by (`tanh_change`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vjp

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, convolved, forward, pooled, tanh_backward
from creditflow.populations.rule import Batch, Update, UpdateRule


class Clean(NamedTuple):
    """One network in a step: as it is, what it makes of the images, and in `down` what feedback makes of that, layer by layer."""

    network: Network
    parameters: Parameters
    feedback: Parameters
    found: Pass
    down: dict[int, Tensor]


#: (clean pass, output difference (B, C)) -> differences of hidden targets, by layer.
Targets = Callable[[Clean, Tensor], dict[int, Tensor]]


def update(loss: Loss, clean: Clean, batch: Batch, step_size: float, targets: Targets) -> Update:
    """Returns the gradients of the local losses |h_i - target_i|^2, as the authors' code scales them.

    With e = dL/dh_L, which holds 1 / B, the output's target is h_L - step_size e. With t_i = 2 f'(a_i) (h_i - target_i), dW_i is
    t_i^T h_{i-1} / B and db_i the mean of t_i, so that the output layer's direction is 2 step_size / B times the gradient.
    """
    network, found = clean.network, clean.found
    n = len(batch.images)
    output = -step_size * loss.slope(found.logits, batch.targets) / n
    directions: Parameters = {}
    for layer, difference in sorted((targets(clean, output) | {network.n_layers: output}).items()):
        error = difference * (-2 / n)
        if layer <= len(network.convolutions):
            directions |= _convolutional(clean, layer, error / network.widths[layer])
            continue
        if layer < network.n_layers:
            error = network.activate.back(error, found.hidden[layer - 1])
        directions[f"weight{layer}"] = error.T @ found.inputs[layer - 1]
        directions[f"bias{layer}"] = error.sum(0)
    return Update(directions, found.logits)


def _convolutional(clean: Clean, layer: int, error: Tensor) -> Parameters:
    """Returns the gradients by a convolutional layer's parameters for that by its output; the loss is a mean over units there."""
    names = f"weight{layer}", f"bias{layer}"

    def above(weight: Tensor, bias: Tensor) -> Tensor:
        return pooled(
            clean.network.activate.value(convolved(clean.network, layer, clean.found.inputs[layer - 1], weight, bias))
        )

    back: Callable[[Tensor], tuple[Tensor, Tensor]] = vjp(above, *(clean.parameters[name] for name in names))[1]
    return dict(zip(names, back(error), strict=True))


def pushed(clean: Clean, noises: list[Tensor]) -> Tensor:
    """Returns by how much the logits move (L - 1, B, C) when the hidden layers do, each by itself, by noises (B, n_l)."""
    moved = noises[0][None]
    network, found = clean.network, clean.found
    for above in range(2, network.n_layers + 1):
        weight = clean.parameters[f"weight{above}"]
        if above <= len(network.convolutions):
            moved = _through_convolution(clean, above, moved, weight)
        else:
            moved = rows(moved, weight)
            if above < network.n_layers:
                moved = network.activate.change(found.pre[above - 1], found.hidden[above - 1], moved)
        if above < network.n_layers:
            moved = torch.cat([moved, noises[above - 1][None]])
    return moved


def _through_convolution(clean: Clean, layer: int, moved: Tensor, weight: Tensor) -> Tensor:
    """Returns by how much a convolutional layer moves (K, B, n) when the one below does. Pooling alone needs the whole values."""
    network, z = clean.network, clean.found.pre[layer - 1]
    value, k = network.activate.value(z), len(moved)
    change = convolved(network, layer, moved.flatten(0, 1), weight).unflatten(0, (k, len(z)))
    change = network.activate.change(z, value, change)
    whole: Tensor = pooled((value + change).flatten(0, 1)).unflatten(0, (k, len(z)))
    return whole - clean.found.hidden[layer - 1]


def rows(values: Tensor, weight: Tensor) -> Tensor:
    """Returns values (K, B, n_in) times a transposed weight (n_out, n_in), as one product of matrices."""
    found: Tensor = (values.flatten(0, 1) @ weight.T).unflatten(0, values.shape[:2])
    return found


def hidden_layers(network: Network) -> range:
    """Returns 1 .. L - 1."""
    return range(1, network.n_layers)


def corruptions(batch: Batch, sigma: float) -> list[Tensor]:
    """Returns the noise sigma epsilon (B, n_l) of each hidden layer."""
    return [sigma * noise for noise in batch.noise]


def activations(found: Pass, layer: int) -> Tensor:
    """Returns h_layer (B, n_layer); the logits for the last."""
    return found.inputs[layer] if layer < len(found.pre) else found.logits


def reconstruction(g: Tensor, change: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Returns what the loss mean (change - noise)^2 / sigma^2 sends (B, n_i) into a tanh unit that is g at the clean place and g + change
    at the corrupted one: at the corrupted, and in all, which is less, as the clean one enters with the opposite sign."""
    error = (change - noise) * (2 / (sigma**2 * noise.numel()))
    corrupted = g + change
    # With slopes 1 - corrupted^2 and 1 - g^2 the sum is a small difference of large terms, unless it is written as a product.
    return tanh_backward(error, corrupted), -error * change * (g + corrupted)


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
            raise ValueError(
                f"sigma must be positive and finite, not {self.sigma}: without noise feedback learns nothing"
            )


def target_rule(
    name: str,
    settings: type[Settings],
    init: Callable[[Network, Any, torch.Generator], Parameters],
    targets: Targets,
    learn: Callable[[Any, Clean, Batch], Parameters],
    down: Callable[[Network, Parameters, Pass], dict[int, Tensor]] = lambda network, feedback, found: {},
    *,
    warnings: Callable[[Network, Any], list[str]] = lambda network, settings: [],
    finish: Callable[[Network, Any, Update], Update] = lambda network, settings, found: found,
    convolutional: bool = False,
    connected: tuple[str, ...],
    plastic: tuple[str, ...],
) -> UpdateRule:
    """Returns the rule with these targets whose feedback learns by noise in every hidden layer: `learn` (settings, clean pass, batch) ->
    directions.

    In a step forward weights follow the targets, feedback its own loss, both as they were before. `down` says what feedback makes of
    a clean pass, where both need it; `finish` has the last word on a step's update.
    """

    def cleanly(network: Network, parameters: Parameters, feedback: Parameters, batch: Batch) -> Clean:
        found = forward(network, parameters, batch.images)
        return Clean(network, parameters, feedback, found, down(network, feedback, found))

    def step(
        network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Update:
        clean = cleanly(network, parameters, feedback, batch)
        taught = update(loss, clean, batch, settings.step_size, targets)
        return finish(network, settings, Update(taught.directions | learn(settings, clean, batch), taught.logits))

    def feedback_step(
        network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Parameters:
        return learn(settings, cleanly(network, parameters, feedback, batch), batch)

    return UpdateRule(
        name=name,
        settings=settings,
        init=init,
        step=step,
        feedback_step=feedback_step,
        noise=lambda network, settings: network.widths[1:-1],
        noisy_step=True,
        warnings=warnings,
        convolutional=convolutional,
        connected=connected,
        plastic=plastic,
    )


def unless_tanh(network: Network, settings: Any) -> list[str]:
    """Warns where feedback through tanh cannot reach what hidden layers are."""
    if network.activation == "tanh":
        return []
    return [
        f"this rule's feedback ends in tanh, hidden layers in {network.activation}: targets are in [-1, 1]; activation: tanh fits"
    ]


def without_last_hidden_bias(network: Network, settings: Any, found: Update) -> Update:
    """Returns the update, without the last hidden layer's bias unless the settings say that it learns."""
    if not settings.last_hidden_bias:
        found.directions.pop(f"bias{network.n_layers - 1}")
    return found
