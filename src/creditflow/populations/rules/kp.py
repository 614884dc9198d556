"""Kolen and Pollack (1994): the feedback matrix takes the same steps as the forward one.

dW_l = -r d_l h_{l-1}^T and dB_l likewise; with the same decay lambda of both, W_l - B_l shrinks as (1 - lambda)^t whatever the data
(`shrinkage` of the optimiser; without any, the difference stays what it was, and only weights that grow around it align).
"""

from creditflow.core.settings import NoSettings
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules import fa
from creditflow.populations.rules._backward import init_like_weights


def step(
    network: Network, loss: Loss, settings: NoSettings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns feedback alignment's update, and the same for the feedback matrices."""
    found = fa.step(network, loss, settings, parameters, feedback, batch)
    same = {name: found.directions[name.replace("feedback", "weight")] for name in feedback}
    return Update(found.directions | same, found.logits)


RULE = UpdateRule(
    name="KP",
    settings=NoSettings,
    init=init_like_weights,
    step=step,
    dropout=True,
    plastic=("uu", "dd"),
    connected=("uu", "dd"),
)
