"""Feedback alignment (Lillicrap et al., 2016): a fixed random matrix takes the place of W_{l+1}^T."""

from typing import Any

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import init_like_weights, update


def step(
    network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update with d_l = (B_{l+1}^T d_{l+1}) * f'(z_l)."""
    return update(
        network, loss, parameters, batch, lambda layer, above, output: above @ feedback[f"feedback{layer + 1}"]
    )


RULE = UpdateRule(
    title="FA",
    order=50,
    color="#CC79A7",
    marker="v",
    init=init_like_weights,
    step=step,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu",),
)
