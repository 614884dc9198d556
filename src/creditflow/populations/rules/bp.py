"""Backpropagation: d_l = (W_{l+1}^T d_{l+1}) * f'(z_l), written out."""

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._backward import update
from creditflow.settings import NoSettings


def step(network: Network, loss: Loss, settings: NoSettings, parameters: Parameters, feedback: Parameters, batch: Batch) -> Update:
    """Returns the exact gradient."""
    return update(network, loss, parameters, batch, lambda layer, above, output: above @ parameters[f"weight{layer + 1}"])


RULE = UpdateRule(name="BP", settings=NoSettings, step=step, connected=("uu",), plastic=("uu",))
