"""What rules share that send the output error back through matrices of their own."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, Pass, forward, uniform
from creditflow.populations.rule import Batch, Update

#: (layer, error of the layer above (B, n_{l+1}), error at the output (B, C)) -> what reaches the hidden layer (B, n_l).
Sent = Callable[[int, Tensor, Tensor], Tensor]


def update(network: Network, loss: Loss, parameters: Parameters, batch: Batch, sent: Sent) -> Update:
    """Returns dW_l = d_l h_{l-1}^T / B and db_l = d_l / B with d_L = dL/dz_L and d_l = sent(l) * f'(z_l) * mask_l."""
    found = forward(network, parameters, batch.images, batch.masks)
    output = loss.slope(found.logits, batch.targets) / len(batch.images)
    errors = [output]
    for layer in range(network.n_layers - 1, 0, -1):
        error = sent(layer, errors[0], output)
        error = network.activate.back(error * batch.masks[layer - 1] if batch.masks else error, found.hidden[layer - 1])
        errors.insert(0, error)
    return Update(directions(errors, found), found.logits)


def directions(errors: list[Tensor], found: Pass) -> Parameters:
    """Returns the products of each layer's error (B, n_l) with its inputs."""
    result = {}
    for layer, (error, inputs) in enumerate(zip(errors, found.inputs, strict=True), 1):
        result[f"weight{layer}"] = error.T @ inputs
        result[f"bias{layer}"] = error.sum(0)
    return result


def init_like_weights(network: Network, settings: Any, generator: torch.Generator) -> Parameters:
    """Draws for each layer above the first a matrix (n_out, n_in) as forward weights are drawn: U(+-sqrt(6 / n_in))."""
    shapes = {layer: (network.widths[layer], network.widths[layer - 1]) for layer in range(2, network.n_layers + 1)}
    return {f"feedback{layer}": uniform(shape, math.sqrt(6 / shape[1]), generator) for layer, shape in shapes.items()}
