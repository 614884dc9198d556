"""What the rules of the target-propagation family share (Meulemans et al., 2020).

Layers are 1 .. L, hidden activations are h_1 .. h_{L-1}.
Everything that is propagated is a difference from the clean pass. So float32 suffices: a target h + small, written as
one number, would lose most digits of the small difference (see `tanh_change`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.func import vjp

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, convolved, forward, pooled, tanh_backward
from creditflow.populations.rule import Batch, Update


class Clean(NamedTuple):
    """The clean pass of one network in a step.

    Attributes:
        network, parameters, feedback: the network as it is.
        activity: its activity for the images.
        down: signals (B, n_l) that feedback makes of this activity, by layer; empty for rules that do not need them.
    """

    network: Network
    parameters: Parameters
    feedback: Parameters
    activity: Pass
    down: dict[int, Tensor]


class Targets(Protocol):
    """How the output's target becomes targets of hidden layers."""

    def __call__(self, clean: Clean, output: Tensor) -> dict[int, Tensor]:
        """Returns target minus activation (B, n_l) of each hidden layer, for that of the output (B, C)."""


def update(loss: Loss, clean: Clean, batch: Batch, step_size: float, targets: Targets) -> Update:
    """Returns the gradients of the local losses |h_i - target_i|^2, as the authors' code scales them.

    With e = dL/dh_L, which holds the factor 1 / B, the output's target is h_L - step_size e. Then

        t_i = 2 f'(a_i) (h_i - target_i),  dW_i = t_i^T h_{i-1} / B,  db_i = mean of t_i over the batch,

    so that the output layer's direction is 2 step_size / B times the gradient.
    """
    network, activity = clean.network, clean.activity
    n = len(batch.images)
    output = -step_size * loss.slope(activity.logits, batch.targets) / n
    directions: Parameters = {}
    for layer, difference in sorted((targets(clean, output) | {network.n_layers: output}).items()):
        error = difference * (-2 / n)
        if layer <= len(network.convolutions):
            directions |= _convolutional(clean, layer, error / network.widths[layer])
            continue
        if layer < network.n_layers:
            error = network.activate.back(error, activity.hidden[layer - 1])
        directions[f"weight{layer}"] = error.T @ activity.inputs[layer - 1]
        directions[f"bias{layer}"] = error.sum(0)
    return Update(directions, activity.logits)


def _convolutional(clean: Clean, layer: int, error: Tensor) -> Parameters:
    """Returns the gradients by a convolutional layer's parameters, from the gradient (B, n) at its output."""
    names = f"weight{layer}", f"bias{layer}"

    def above(weight: Tensor, bias: Tensor) -> Tensor:
        z = convolved(clean.network, layer, clean.activity.inputs[layer - 1], weight, bias)
        return pooled(clean.network.activate.value(z))

    back: Callable[[Tensor], tuple[Tensor, Tensor]] = vjp(above, *(clean.parameters[name] for name in names))[1]
    return dict(zip(names, back(error), strict=True))


def pushed(clean: Clean, noises: list[Tensor]) -> Tensor:
    """Returns for each hidden layer how the logits change (L - 1, B, C) if its noise (B, n_l) moves it alone."""
    moved = noises[0][None]
    network, activity = clean.network, clean.activity
    for above in range(2, network.n_layers + 1):
        weight = clean.parameters[f"weight{above}"]
        if above <= len(network.convolutions):
            moved = _through_convolution(clean, above, moved, weight)
        else:
            moved = rows(moved, weight)
            if above < network.n_layers:
                moved = network.activate.change(activity.pre[above - 1], activity.hidden[above - 1], moved)
        if above < network.n_layers:
            moved = torch.cat([moved, noises[above - 1][None]])
    return moved


def _through_convolution(clean: Clean, layer: int, moved: Tensor, weight: Tensor) -> Tensor:
    """Returns the change (K, B, n) of a convolutional layer for a change of the layer below.

    Pooling needs whole values, not differences.
    """
    network, z = clean.network, clean.activity.pre[layer - 1]
    value, k = network.activate.value(z), len(moved)
    change = convolved(network, layer, moved.flatten(0, 1), weight).unflatten(0, (k, len(z)))
    change = network.activate.change(z, value, change)
    whole: Tensor = pooled((value + change).flatten(0, 1)).unflatten(0, (k, len(z)))
    return whole - clean.activity.hidden[layer - 1]


def rows(values: Tensor, weight: Tensor) -> Tensor:
    """Returns values (K, B, n_in) times a transposed weight (n_out, n_in), computed as one matrix product."""
    product: Tensor = (values.flatten(0, 1) @ weight.T).unflatten(0, values.shape[:2])
    return product


def hidden_layers(network: Network) -> range:
    """Returns 1 .. L - 1."""
    return range(1, network.n_layers)


def corruptions(batch: Batch, sigma: float) -> list[Tensor]:
    """Returns the noise sigma epsilon (B, n_l) of each hidden layer."""
    return [sigma * noise for noise in batch.noise]


def activations(activity: Pass, layer: int) -> Tensor:
    """Returns the activation h_l (B, n_l) of a layer; for the last layer the logits."""
    return activity.inputs[layer] if layer < len(activity.pre) else activity.logits


def reconstruction(g: Tensor, change: Tensor, noise: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Returns two gradients (B, n_i) of the loss mean (change - noise)^2 / sigma^2 by pre-activations of a tanh unit.

    The unit's value is g in the clean pass, and g + change in the corrupted one. The first gradient is that of the
    corrupted pass. The second is the sum over both passes, where the clean one enters with the opposite sign.
    """
    error = (change - noise) * (2 / (sigma**2 * noise.numel()))
    corrupted = g + change
    # With the slopes 1 - corrupted^2 and 1 - g^2, the sum would be a small difference of large terms. A product of them
    # is exact.
    return tanh_backward(error, corrupted), -error * change * (g + corrupted)


def xavier_normal(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draws N(0, 2 / (n_in + n_out)) (Glorot and Bengio, 2010)."""
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / sum(shape))


class Learn(Protocol):
    """How feedback learns from the noise in a batch."""

    def __call__(self, settings: Any, clean: Clean, batch: Batch) -> Parameters:
        """Returns directions of the feedback state."""


class Down(Protocol):
    """What feedback makes of a clean pass, where both targets and feedback's own learning need it."""

    def __call__(self, network: Network, feedback: Parameters, activity: Pass) -> dict[int, Tensor]:
        """Returns signals (B, n_l) by layer."""


class Finish(Protocol):
    """Has the last word on the update of a step."""

    def __call__(self, network: Network, settings: Any, proposed: Update) -> Update:
        """Returns the update that is made."""


def _nothing_down(network: Network, feedback: Parameters, activity: Pass) -> dict[int, Tensor]:
    return {}


def _as_proposed(network: Network, settings: Any, proposed: Update) -> Update:
    return proposed


@dataclass(frozen=True)
class TargetMethod:
    """The steps of a rule with targets, whose feedback learns from noise in every hidden layer.

    In a step forward weights follow the targets, and feedback descends its own loss. Both use the weights from before
    the step.

    Attributes:
        targets: differences of the hidden layers' targets from their activations.
        learn: directions of the feedback state.
        down: what feedback makes of a clean pass.
        finish: changes the update at the end.
    """

    targets: Targets
    learn: Learn
    down: Down = _nothing_down
    finish: Finish = _as_proposed

    def step(
        self, network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Update:
        """Returns the update of forward weights and feedback."""
        clean = self._clean(network, parameters, feedback, batch)
        taught = update(loss, clean, batch, settings.step_size, self.targets)
        both = Update(taught.directions | self.learn(settings, clean, batch), taught.logits)
        return self.finish(network, settings, both)

    def feedback_step(
        self, network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Parameters:
        """Returns the directions of feedback alone."""
        return self.learn(settings, self._clean(network, parameters, feedback, batch), batch)

    def _clean(self, network: Network, parameters: Parameters, feedback: Parameters, batch: Batch) -> Clean:
        activity = forward(network, parameters, batch.images)
        return Clean(network, parameters, feedback, activity, self.down(network, feedback, activity))


def hidden_widths(network: Network, settings: Any) -> tuple[int, ...]:
    """Returns the widths of the noise of these rules: those of the hidden layers."""
    return network.widths[1:-1]


def unless_tanh(network: Network, settings: Any) -> list[str]:
    """Warns where feedback, which ends in tanh, cannot reach the values of the hidden layers."""
    if network.activation == "tanh":
        return []
    return [
        f"this rule's feedback ends in tanh, hidden layers in {network.activation}: targets are in [-1, 1];"
        " activation: tanh fits"
    ]


def without_last_hidden_bias(network: Network, settings: Any, proposed: Update) -> Update:
    """Returns the update without the last hidden layer's bias, unless the settings say that this bias learns."""
    if not settings.last_hidden_bias:
        proposed.directions.pop(f"bias{network.n_layers - 1}")
    return proposed
