"""Direct feedback alignment (Nokland, 2016): the output error reaches hidden layers through fixed random matrices."""

import math

import torch

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, uniform
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import update
from creditflow.populations.rules.settings.dfa import Settings


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws a matrix (C, n_l) for each hidden layer, U(+-scale sqrt(6 / n_l))."""
    widths = network.widths
    return {
        f"feedback{layer}": uniform(
            (widths[-1], widths[layer]), settings.scale * math.sqrt(6 / widths[layer]), generator
        )
        for layer in range(1, network.n_layers)
    }


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update with d_l = (B_l^T d_L) * f'(z_l)."""
    return update(network, loss, parameters, batch, lambda layer, above, output: output @ feedback[f"feedback{layer}"])


RULE = UpdateRule(
    title="DFA",
    order=60,
    color="#E69F00",
    marker="P",
    init=init,
    step=step,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu",),
)
