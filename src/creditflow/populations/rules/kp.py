"""Kolen and Pollack (1994): the feedback matrix takes the same steps as the forward one.

The steps are dW_l = -r d_l h_{l-1}^T, and the same for B_l. If both decay with the same lambda (`shrinkage` of the
optimiser), their difference W_l - B_l shrinks as (1 - lambda)^t, whatever the data are. Without decay the difference
stays as it was; then the two align only where weights grow large beside it.
"""

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules import fa
from creditflow.populations.rules._backward import init_like_weights
from creditflow.populations.rules.settings.kp import Settings


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns feedback alignment's update, with the same directions for the feedback matrices."""
    aligned = fa.step(network, loss, settings, parameters, feedback, batch)
    same = {name: aligned.directions[name.replace("feedback", "weight")] for name in feedback}
    return Update(aligned.directions | same, aligned.logits)


RULE = UpdateRule(
    title="KP",
    order=80,
    color="#009E73",
    marker=">",
    init=init_like_weights,
    step=step,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
