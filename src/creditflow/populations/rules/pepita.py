"""PEPITA (Dellaferrera and Kreiman, 2022): a second forward pass takes the place of the backward pass.

The second pass is that of the image plus the projected output error. With e = h_L - y and h_0^mod = x + F e,

    dW_l = (h_l - h_l^mod) (h_{l-1}^mod)^T,  db_l = h_l - h_l^mod   in hidden layers,
    dW_L = e (h_{L-1}^mod)^T,                db_L = e               in the output layer,

where h_L is the softmax (Algorithm 1 of the robustness paper).
"""

import math

import torch

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward, uniform
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import directions
from creditflow.populations.rules.settings.pepita import Settings


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws F (n_0, C)."""
    n_in, n_classes = network.widths[0], network.widths[-1]
    return {"projection": uniform((n_in, n_classes), math.sqrt(6 / n_in) * settings.feedback_scale, generator)}


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update of both passes, which share their dropout masks.

    The loss is not used: the error is always h_L - y.
    """
    first = forward(network, parameters, batch.images, batch.masks)
    error = first.logits.softmax(-1) - batch.targets
    # The first layer is linear, so that W_1 (x + F e) = W_1 x + (W_1 F) e. This saves a third of a step's work.
    moved = first.pre[0] + error @ (parameters["weight1"] @ feedback["projection"]).T
    second = forward(network, parameters, batch.images + error @ feedback["projection"].T, batch.masks, moved)
    output = error if settings.output_error == "first" else second.logits.softmax(-1) - batch.targets
    differences = [before - after for before, after in zip(first.inputs[1:], second.inputs[1:], strict=True)]
    errors = [error / len(batch.images) for error in [*differences, output]]
    return Update(directions(errors, second), first.logits)


RULE = UpdateRule(
    title="PEPITA",
    order=100,
    color="#56B4E9",
    marker="X",
    init=init,
    step=step,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu",),
)
