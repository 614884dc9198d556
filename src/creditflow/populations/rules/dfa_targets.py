"""DFA as the target-propagation paper has it: DDTP-linear's targets through matrices that stay as they were drawn, one loss gradient away.

Beside the rule `dfa` it has Xavier normal feedback, no bias in the last hidden layer, and the scale 2 / B of local losses, for which the
published hyper-parameters of Adam were found.
"""

from dataclasses import dataclass

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.rules._targets import Clean, update, without_last_hidden_bias
from creditflow.populations.rules.ddtp_linear import init, targets


@dataclass(frozen=True)
class Settings:
    """last_hidden_bias: whether the last hidden layer's forward bias learns."""

    last_hidden_bias: bool = False


def step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Update:
    """Returns the update with targets h_i - Q_i e."""
    clean = Clean(network, parameters, feedback, forward(network, parameters, batch.images), {})
    return without_last_hidden_bias(network, settings, update(loss, clean, batch, 1.0, targets))


RULE = UpdateRule(
    name="DFA", settings=Settings, init=init, step=step, convolutional=True, connected=("uu", "dd"), plastic=("uu",)
)
