"""PEPITA (Dellaferrera and Kreiman, 2022): a second forward pass takes the place of the backward pass.

The second pass is that of the image plus the projected output error. With e = h_L - y and h_0^mod = x + F e,

    dW_l = (h_l - h_l^mod) (h_{l-1}^mod)^T,  db_l = h_l - h_l^mod   in hidden layers,
    dW_L = e (h_{L-1}^mod)^T,                db_L = e               in the output layer,

where h_L is the softmax (Algorithm 1 of the robustness paper).

In adversarial training each step on natural images is followed by one on their adversarial versions. The robustness
paper's code then takes x_mod of the natural images for h_0^mod in dW_1 (`adversarial_presynaptic: natural`). To first
order h_1 - h_1^mod is -W_1 F e, so that dW_1 feeds W_1 F back to itself. Its input decides the sign of that loop.
"""

import math

import torch
from torch import Tensor

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

    The loss is not used: the error is always h_L - y. In a step with `batch.presynaptic` the first layer's weights
    learn with it in the place of h_0^mod.
    """
    first = forward(network, parameters, batch.images, batch.masks)
    error = first.logits.softmax(-1) - batch.targets
    # The first layer is linear, so that W_1 (x + F e) = W_1 x + (W_1 F) e. This saves a third of a step's work.
    moved = first.pre[0] + error @ (parameters["weight1"] @ feedback["projection"]).T
    second = forward(network, parameters, batch.images + error @ feedback["projection"].T, batch.masks, moved)
    output = error if settings.output_error == "first" else second.logits.softmax(-1) - batch.targets
    differences = [before - after for before, after in zip(first.inputs[1:], second.inputs[1:], strict=True)]
    errors = [error / len(batch.images) for error in [*differences, output]]
    learned_with = second._replace(inputs=[*batch.presynaptic, *second.inputs[1:]]) if batch.presynaptic else second
    presynaptic = (second.inputs[0],) if settings.adversarial_presynaptic == "natural" else ()
    return Update(directions(errors, learned_with), first.logits, presynaptic)


def loop(network: Network, settings: Settings, parameters: Parameters, feedback: Parameters) -> dict[str, Tensor]:
    """Returns the Frobenius norm of W_1 F (n_1, C), through which the output error reaches the hidden layer."""
    return {"loop_growth": (parameters["weight1"].double() @ feedback["projection"].double()).norm()}


RULE = UpdateRule(
    title="PEPITA",
    order=100,
    color="#56B4E9",
    marker="X",
    init=init,
    step=step,
    loop=loop,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu",),
)
