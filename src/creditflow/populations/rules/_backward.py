"""What the rules share that send the output error backwards, through forward weights or matrices of their own."""

import math
from typing import Protocol

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward, uniform
from creditflow.populations.rule import Batch, Update
from creditflow.populations.rules.settings._feedback import FeedbackSettings


class Sent(Protocol):
    """How an error reaches a hidden layer."""

    def __call__(self, layer: int, above: Tensor, output: Tensor) -> Tensor:
        """Returns the error (B, n_l) at a hidden layer, from that above it (B, n_{l+1}) or at the output (B, C)."""


def update(network: Network, loss: Loss, parameters: Parameters, batch: Batch, sent: Sent) -> Update:
    """Returns dW_l = d_l h_{l-1}^T / B and db_l = d_l / B with d_L = dL/dz_L and d_l = sent(l) * f'(z_l) * mask_l."""
    activity = forward(network, parameters, batch.images, batch.masks)
    output = loss.slope(activity.logits, batch.targets) / len(batch.images)
    errors = [output]
    for layer in range(network.n_layers - 1, 0, -1):
        error = sent(layer, errors[0], output)
        error = network.activate.back(
            error * batch.masks[layer - 1] if batch.masks else error, activity.hidden[layer - 1]
        )
        errors.insert(0, error)
    return Update(directions(errors, activity), activity.logits)


def directions(errors: list[Tensor], activity: Pass) -> Parameters:
    """Returns the directions of weights (products of a layer's error (B, n_l) and inputs) and biases (sums of it)."""
    result = {}
    for layer, (error, inputs) in enumerate(zip(errors, activity.inputs, strict=True), 1):
        result[f"weight{layer}"] = error.T @ inputs
        result[f"bias{layer}"] = error.sum(0)
    return result


def init_like_weights(network: Network, settings: FeedbackSettings, generator: torch.Generator) -> Parameters:
    """Draws a matrix (n_out, n_in) for each layer above the first from U(+-scale sqrt(6 / n_in)).

    With a scale of 1 this is what the initialisation `he_uniform` draws forward weights from. Feedback matrices have it
    whatever the initialisation is.
    """
    shapes = {layer: (network.widths[layer], network.widths[layer - 1]) for layer in range(2, network.n_layers + 1)}
    return {
        f"feedback{layer}": uniform(shape, settings.scale * math.sqrt(6 / shape[1]), generator)
        for layer, shape in shapes.items()
    }
