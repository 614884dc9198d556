"""Backpropagation: d_l = (W_{l+1}^T d_{l+1}) * f'(z_l), written out.

Where there are convolutions, autograd computes it.
"""

from torch import Tensor
from torch.func import grad

from creditflow.core.settings import NoSettings
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import update


def step(
    network: Network, loss: Loss, settings: NoSettings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the exact gradient."""
    if network.convolutions:
        return _differentiated(network, loss, parameters, batch)
    return update(
        network, loss, parameters, batch, lambda layer, above, output: above @ parameters[f"weight{layer + 1}"]
    )


def _differentiated(network: Network, loss: Loss, parameters: Parameters, batch: Batch) -> Update:
    def mean_loss(current: Parameters) -> tuple[Tensor, Tensor]:
        logits = forward(network, current, batch.images).logits
        return loss.value(logits, batch.targets).mean(), logits

    directions, logits = grad(mean_loss, has_aux=True)(parameters)
    return Update(directions, logits)


RULE = UpdateRule(
    title="BP",
    order=10,
    color="#000000",
    marker="o",
    step=step,
    convolutional=True,
    dropout=True,
    connected=("uu",),
    plastic=("uu",),
)
