"""DFA as the target-propagation paper has it: DDTP-linear's targets with feedback matrices that do not learn.

The output's target lies one loss gradient away from the output. Unlike the rule `dfa`, feedback is Xavier normal, the
last hidden layer has no bias, and directions have the scale 2 / B of local losses. The published hyper-parameters of
Adam were found with that scale.
"""

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._targets import Clean, update, without_last_hidden_bias
from creditflow.populations.rules.ddtp_linear import init, targets
from creditflow.populations.rules.settings.dfa_targets import Settings


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update with targets h_i - Q_i e."""
    clean = Clean(network, parameters, feedback, forward(network, parameters, batch.images), {})
    return without_last_hidden_bias(network, settings, update(loss, clean, batch, 1.0, targets))


RULE = UpdateRule(
    title="DFA",
    order=110,
    color="#E69F00",
    marker="P",
    init=init,
    step=step,
    convolutional=True,
    connected=("uu", "dd"),
    plastic=("uu",),
)
