"""PEPITA (Dellaferrera and Kreiman, 2022): a second forward pass of the image plus the projected output error replaces the backward pass.

With e = h_L - y and h_0^mod = x + F e, the hidden layers learn from dW_l = (h_l - h_l^mod) (h_{l-1}^mod)^T and db_l = h_l - h_l^mod,
the output layer from dW_L = e (h_{L-1}^mod)^T and db_L = e, where h_L is the softmax (Algorithm 1 of the robustness paper).
"""

import math
from dataclasses import dataclass

import torch

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward, uniform
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import directions


@dataclass(frozen=True)
class Settings:
    """PEPITA's own choices.

    Attributes:
        output_error: pass whose error teaches the output layer: "first", as the papers' algorithm says, or "second", as the code of
            both papers does.
        feedback_scale: factor on F ~ U(+-sqrt(6 / n_0)).
    """

    output_error: str = "first"
    feedback_scale: float = 0.05

    def __post_init__(self) -> None:
        if self.output_error not in ("first", "second"):
            raise ValueError(f"output_error must be 'first' or 'second', not {self.output_error!r}")
        if not 0 <= self.feedback_scale < math.inf:
            raise ValueError("feedback_scale must be at least 0 and finite")


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws F (n_0, C)."""
    n_in, n_classes = network.widths[0], network.widths[-1]
    return {"projection": uniform((n_in, n_classes), math.sqrt(6 / n_in) * settings.feedback_scale, generator)}


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update of both passes, which share their dropout masks. The loss has no say: the error is always h_L - y."""
    first = forward(network, parameters, batch.images, batch.masks)
    error = first.logits.softmax(-1) - batch.targets
    # The first layer is linear: W_1 (x + F e) = W_1 x + (W_1 F) e, which spares a third of a step's work.
    moved = first.pre[0] + error @ (parameters["weight1"] @ feedback["projection"]).T
    second = forward(network, parameters, batch.images + error @ feedback["projection"].T, batch.masks, moved)
    output = error if settings.output_error == "first" else second.logits.softmax(-1) - batch.targets
    differences = [before - after for before, after in zip(first.inputs[1:], second.inputs[1:], strict=True)]
    errors = [one / len(batch.images) for one in [*differences, output]]
    return Update(directions(errors, second), first.logits)


RULE = UpdateRule(
    name="PEPITA", settings=Settings, init=init, step=step, dropout=True, connected=("uu", "dd"), plastic=("uu",)
)
